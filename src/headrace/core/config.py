"""The plant file: ``plant.toml`` as frozen, checked models.

What a protocol or an operator alone understands stays as written (`AdapterSection.options`, the steps of a
pipeline): whoever owns it checks it with `headrace.core.problems.validate_section`. Headrace never rewrites
the file.
"""

from __future__ import annotations

import re
import tomllib
import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from headrace.core.clock import NS
from headrace.core.disk import BUCKET_SCHEMES
from headrace.core.errors import ConfigError
from headrace.core.paths import check_path, parse_duration_ns
from headrace.core.problems import InvalidConfig, Problem, dotted, find_problems
from headrace.core.profiles import ProfileSection, inclusion_problems
from headrace.core.registry import nearest
from headrace.core.settings import (
    CodecSettings,
    DurationNs,
    ListenAddress,
    PathPattern,
    PlainUrl,
    SecretRef,
    Section,
    SignalTreatment,
    SizeBytes,
    WriteTemplate,
    check_url,
    with_texts,
)
from headrace.core.specificity import ties
from headrace.core.tier_settings import RESOLUTIONS, Resolutions, TierSection, tier_problems

VERSION = 1
MIN_TOKEN_CHARACTERS = 16
_LATER = ("health", "scaling", "alerts")
_LEVEL = re.compile(r"[a-z][a-z0-9_]*")
_AT_LINE = re.compile(r"(.*) \(at line (\d+), column \d+\)")
_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}|\[::1\]")


def _version(value: int) -> int:
    if value != VERSION:
        raise ValueError(f"the file has version {value}; this program reads version {VERSION}")
    return value


def _levels(value: tuple[str, ...]) -> tuple[str, ...]:
    if not 3 <= len(value) <= 8:
        raise ValueError(f"a path has 3 to 8 levels, these are {len(value)}")
    for name in value:
        if not _LEVEL.fullmatch(name):
            raise ValueError(f"level {name!r} is not a name; use lower-case letters, digits and '_'")
    if len(set(value)) != len(value):
        raise ValueError("a level is there twice; name each once")
    return value


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError(f"{value!r} is not a time zone; write one such as 'Europe/Madrid' or 'UTC'") from e
    return value


def _store_url(value: str) -> str:
    parts = urlsplit(check_url(value))
    scheme = parts.scheme if "://" in value else ""
    if scheme in BUCKET_SCHEMES:
        if not parts.hostname or parts.netloc != parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{value!r} names no bucket; write '{scheme}://bucket/plant'")
        return value
    if scheme not in ("", "file"):
        known = ", ".join(f"{one}://bucket/plant" for one in BUCKET_SCHEMES)
        raise ValueError(f"there are no stores at {scheme}://; write a folder, './store', or {known}")
    if not value or (scheme and urlsplit(value).netloc not in ("", "localhost")):
        raise ValueError(f"{value!r} is not a folder; write './store' or 'file:///var/lib/store'")
    return value


class PlantSection(Section):
    """``[plant]``: what all paths and times have in common."""

    levels: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_levels)] = Field(
        default=("site", "area", "line", "device", "signal"),
        description="names of the levels of every path, 3 to 8; the last one is the signal",
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default="UTC", description="zone of times that have no offset"
    )

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The plant's time zone."""
        return zoneinfo.ZoneInfo(self.timezone)


class StoreOptions(Section):
    """``[store.options]``: how a bucket is reached. Credentials are none of them: they come from the environment.

    That is AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY
    and their like, or the role of the machine.
    """

    endpoint: PlainUrl | None = Field(
        default=None, description="address of the service, where it is not the provider's own"
    )
    region: str | None = Field(default=None, description="region of the bucket; default: AWS_REGION")
    account: str | None = Field(
        default=None, description="storage account, for az://; default: AZURE_STORAGE_ACCOUNT_NAME"
    )
    ca_file: str | None = Field(
        default=None,
        description="PEM certificates to trust besides the system's; looked up beside the plant file",
    )
    timeout: DurationNs = Field(
        default="30s", validate_default=True, description="how long a request may take with all its tries"
    )


class StoreSection(Section):
    """``[store]``: where data stay, and how much may wait.

    Each shard is written every `flush_interval`, in turns where they hold much, and all of them when unflushed frames together
    pass `flush_size`; the journal slows the sources when it reaches `journal_size`. Refused input is kept
    for replay, the newest `rejects_size` of it.
    """

    url: Annotated[str, AfterValidator(_store_url)] = Field(
        default="./store",
        description="the store's folder; a relative one lies beside the plant file; or a bucket: "
        "s3://bucket/plant, gs://bucket/plant, az://container/plant",
    )
    folder: str = Field(
        default="./store",
        min_length=1,
        description="where the journal and refused input stay, where url is a bucket",
    )
    options: StoreOptions = Field(
        default=StoreOptions(), description="how the bucket is reached, where url is one"
    )
    flush_interval: DurationNs = Field(
        default="2m", validate_default=True, description="how often each shard is written to segments"
    )
    flush_size: SizeBytes = Field(
        default="1GB",
        validate_default=True,
        description="unflushed frames together; beyond it all are written",
    )
    journal_size: SizeBytes = Field(
        default="4GB", validate_default=True, description="the journal on disk; beyond it sources are slowed"
    )
    rollups: Literal["1m", "off"] = Field(
        default="1m",
        description="aggregates of each minute as plain Parquet in the store's folder rollups/1m",
    )
    resolutions: Resolutions = Field(
        default=RESOLUTIONS,
        description="windows of each day that are kept as chunks, where they pay, and answer queries; [] for none",
    )
    rejects_size: SizeBytes = Field(
        default="256MB", validate_default=True, description="refused input kept for replay, the newest"
    )
    compaction_cpu: Annotated[float, Field(gt=0, le=1, strict=False)] = Field(
        default=0.25,
        description="share of one core that compaction and ageing take; more only where days wait for compaction",
    )
    compaction_io: SizeBytes = Field(
        default="50MB", validate_default=True, description="bytes a second that they read and write, at most"
    )

    @property
    def resolutions_ns(self) -> tuple[int, ...]:
        """How long the windows that are kept as chunks are, ns, short ones first."""
        return tuple(sorted(parse_duration_ns(one) for one in self.resolutions))

    @property
    def is_bucket(self) -> bool:
        """Whether segments and commits are in a bucket, and only the rest in a folder."""
        return self.url.startswith(tuple(f"{one}://" for one in BUCKET_SCHEMES))

    def local_folder(self, base: Path) -> Path:
        """The store's folder; a relative one lies in `base`, the folder of the plant file."""
        if self.is_bucket:
            return base / self.folder
        if self.url.startswith("file://"):
            return Path(unquote(urlsplit(self.url).path))
        return base / self.url


class AdapterSection(Section):
    """``[adapters.<name>]``: the keys that all protocols share; the protocol's own are in `options`."""

    model_config = ConfigDict(extra="allow")

    protocol: str = Field(description="which adapter it is: 'modbus', 'mqtt', ...")
    profile: str | None = Field(
        default=None, description="name of a [profiles.NAME]: what the devices report"
    )
    interval: DurationNs | None = Field(default=None, description="time between polls")
    url: PlainUrl | None = Field(default=None, description="where the source is; never with a password in it")
    user: str | None = Field(default=None, description="who we are to the source")
    password: SecretRef | None = Field(default=None, description="of that user")
    devices: Any = None
    topics: dict[str, dict[str, Any]] = Field(default_factory=dict)
    tags: str | None = Field(
        default=None,
        description="name of a CSV file, a signal a line: profiles of the adapter's own, or which signals it takes",
    )
    treatments: dict[PathPattern, SignalTreatment] = Field(
        default_factory=dict,
        description="what is made of the values of sensors, by a pattern of their paths; the most specific one counts",
    )
    process: Literal["engine", "own"] = Field(
        default="engine",
        description="where it runs: in the engine, or in a process of its own, whose end is not the engine's",
    )

    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """The section as written, without `tags`, `treatments` and `process`: what the adapter's own model is made from."""
        return {
            key: value for key, value in self._written.items() if key not in ("tags", "treatments", "process")
        }

    @property
    def has_signal_table(self) -> bool:
        """Whether its table of tags names signals, as its rules for topics or metrics leave no devices to name."""
        return self.tags is not None and self.devices is None

    @property
    def table_names(self) -> list[str]:
        """Files beside the plant file that it is made of, too: of its devices, of its tags."""
        return [name for name in (self.devices, self.tags) if isinstance(name, str)]


class PipelineSection(Section):
    """``[pipelines.<name>]``: sensors read, steps, and the template of what is written."""

    read: PathPattern = Field(
        description="pattern of the sensors it reads; series that are derived are never read"
    )
    steps: Annotated[tuple[dict[str, Any], ...], Field(strict=False, min_length=1)] = Field(
        description='operators in order, each a table: { op = "window", every = "1m", agg = ["mean"] }'
    )
    write: WriteTemplate = Field(
        description="path of what is written: {parent}, {signal}, {agg}, as in '{parent}/{signal}_{agg}_1m'"
    )


class RuntimeSection(Section):
    """``[runtime]``: how the work is spread, and what is told of it. `threads` runs shards; default: a thread a core."""

    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="threads that run shards; default: one a core"
    )
    stale_after: DurationNs = Field(
        default=300 * NS,
        description="after this long without a usable value a signal counts as stale in metrics and `adapters show --tags`",
    )


class TokensSection(Section):
    """``[api.tokens]``: who may do what.

    A *viewer* reads, an *operator* also writes samples and steers adapters, an *admin* also changes the
    configuration. Without any token whoever is on this machine may do everything.
    """

    viewer: SecretRef | None = Field(default=None, description="token of those who may read")
    operator: SecretRef | None = Field(
        default=None, description="token of those who may also write samples and steer adapters"
    )
    admin: SecretRef | None = Field(
        default=None, description="token of those who may also change the configuration"
    )

    def read(self, folder: Path) -> dict[str, str]:
        """Role → token. Raises `ConfigError`: one can't be read, or is too short to be a secret."""
        found = {}
        for role in ("viewer", "operator", "admin"):
            secret: SecretRef | None = getattr(self, role)
            if secret is not None:
                found[role] = secret.read(folder)
                if len(found[role]) < MIN_TOKEN_CHARACTERS:
                    raise ConfigError(
                        f"is shorter than {MIN_TOKEN_CHARACTERS} characters; make one with: openssl rand -hex 24",
                        f"api.tokens.{role}",
                    )
        return found


class ApiSection(Section):
    """``[api]``: where the process answers, and to whom."""

    listen: ListenAddress = Field(
        default="127.0.0.1:8844", description="host:port; beyond loopback only with [api.tokens]"
    )
    cert_file: str | None = Field(
        default=None,
        description="certificate of this port with its chain (PEM): it is answered by https then",
    )
    key_file: str | None = Field(
        default=None, description="the key of cert_file, without a passphrase; default: in cert_file"
    )
    client_ca_file: str | None = Field(
        default=None, description="only clients with a certificate of these authorities may connect"
    )
    tokens: TokensSection = TokensSection()

    @property
    def host(self) -> str:
        """Address to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port to listen on; 0 for any that is free."""
        return int(self.listen.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class PlantSource:
    """Where a plant's configuration comes from: a file, and the keys that were overridden."""

    file: Path
    overrides: tuple[str, ...] = ()

    def load(self) -> PlantConfig:
        """Read it as it is now. Raises as `load_plant`."""
        return load_plant(self.file, self.overrides)


class PlantConfig(Section):
    """A whole plant file."""

    version: Annotated[int, AfterValidator(_version)] = Field(description="version = 1")
    plant: PlantSection = PlantSection()
    store: StoreSection = StoreSection()
    profiles: dict[str, ProfileSection] = Field(default_factory=dict)
    adapters: dict[str, AdapterSection] = Field(default_factory=dict)
    pipelines: dict[str, PipelineSection] = Field(default_factory=dict)
    codecs: dict[str, CodecSettings] = Field(default_factory=dict)
    tiers: dict[str, TierSection] = Field(default_factory=dict)
    runtime: RuntimeSection = RuntimeSection()
    api: ApiSection = ApiSection()

    _folder: Path = PrivateAttr(default=Path())
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)
    _source: PlantSource | None = PrivateAttr(default=None)
    _tables: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def tables(self) -> Mapping[str, str]:
        """Texts that stand for files beside the plant file, by the name written: the files may change later."""
        return self._tables

    def with_tables(self, tables: Mapping[str, str]) -> PlantConfig:
        """The same with texts in place of these files."""
        changed = self.model_copy()
        changed._tables = {**self._tables, **tables}
        return changed

    @property
    def folder(self) -> Path:
        """The folder of the plant file: relative names in it start here."""
        return self._folder

    @property
    def written(self) -> dict[str, Any]:
        """The whole file as written, with what was overridden."""
        return dict(self._written)

    @property
    def source(self) -> PlantSource | None:
        """The file it was read from; None where it was made otherwise."""
        return self._source

    @property
    def store_folder(self) -> Path:
        """The store's folder: all of it, or what of it is not in the bucket."""
        return self.store.local_folder(self._folder)


def load_plant(path: str | Path, overrides: Iterable[str] = ()) -> PlantConfig:
    """Read and check a plant file.

    Parameters
    ----------
    overrides : single keys to change, as ``store.url=./other``; the value is TOML, or else text.

    Raises
    ------
    ConfigError : the file can't be read or is not TOML (with file and line).
    InvalidConfig : it has problems; all of them.
    """
    source = PlantSource(Path(path), tuple(overrides))
    try:
        text = source.file.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ConfigError(f"not UTF-8 text (byte {e.start}); save it as UTF-8", str(source.file)) from e
    except OSError as e:
        raise ConfigError(f"can't be read: {e.strerror}", str(source.file)) from e
    return read_plant(text, source)


def read_plant(text: str, source: PlantSource) -> PlantConfig:
    """Check a plant file's text, wherever it came from.

    Parameters
    ----------
    source : the file that it is, or would be, the text of, and what is overridden in it.

    Raises
    ------
    ConfigError : it is not TOML (with file and line). InvalidConfig : it has problems; all of them.
    """
    try:
        data = with_texts(tomllib.loads(text))
    except tomllib.TOMLDecodeError as e:
        match = _AT_LINE.fullmatch(str(e))
        where = f"{source.file}:{match[2]}" if match else str(source.file)
        raise ConfigError(f"not valid TOML: {match[1] if match else e}", where) from e
    except (ValueError, RecursionError) as e:  # a number of thousands of digits, brackets in thousands
        raise ConfigError(f"not valid TOML: {e}", str(source.file)) from e
    for override in source.overrides:
        _override(data, override)
    config = parse_plant(data, source.file.parent)
    config._source = source
    return config


def parse_plant(data: Mapping[str, Any], folder: Path) -> PlantConfig:
    """Check what a plant file says; `folder` is where it lies.

    Raises
    ------
    InvalidConfig : every problem in it.
    """
    problems = [
        Problem(name, "this version does not have this section yet; remove it")
        for name in _LATER
        if name in data
    ]
    known = {k: v for k, v in data.items() if k not in _LATER}
    try:
        config = PlantConfig.model_validate(known)
    except ValidationError as e:
        raise InvalidConfig([*problems, *find_problems(PlantConfig, known, e)]) from None
    problems += _cross_problems(config)
    if problems:
        raise InvalidConfig(problems)
    config._folder = folder
    config._written = dict(data)
    for name, section in config.adapters.items():
        section._written = known["adapters"][name]
    return config


def json_schema(adapters: Mapping[str, type[BaseModel]] | None = None) -> dict[str, Any]:
    """JSON schema of a plant file, for editors.

    Parameters
    ----------
    adapters : protocol → the adapter's own model, whose keys the schema then knows as well.
    """
    schema = PlantConfig.model_json_schema()
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Headrace plant file",
    }
    schema["properties"]["version"] = {"const": VERSION}
    shared = schema["$defs"]["AdapterSection"]["properties"]
    for model in (adapters or {}).values():
        own = model.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"].update(own.pop("$defs", {}))
        for key, value in own["properties"].items():
            shared.setdefault(key, value)
    return schema


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = _key_parts(key)
    if not equals or not parts:
        raise ConfigError("an override is written KEY=VALUE, as in store.url=./other", override)
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        value = text
    at = data
    for part in parts[:-1]:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            raise ConfigError(f"{part!r} is a value, not a table", key)
    at[parts[-1]] = value


def _key_parts(key: str) -> list[str]:
    """``adapters.ovens.devices."a/b"`` → its parts; none where it is no key."""
    try:
        at: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return []
    parts = []
    while isinstance(at, dict):
        ((part, at),) = at.items()
        parts.append(part)
    return parts


def _cross_problems(config: PlantConfig) -> list[Problem]:
    """What no table can know alone."""
    problems: list[Problem] = []
    host = config.api.listen.rpartition(":")[0]
    if not _LOOPBACK.fullmatch(host) and config.api.tokens == TokensSection():
        text = f"listening on {host} lets the whole network in; write [api.tokens], or listen on 127.0.0.1"
        problems.append(Problem("api.listen", text))
    if not config.store.is_bucket:
        written = sorted({"folder", "options"} & config.store.model_fields_set)
        text = "is for stores in a bucket, and store.url names a folder; remove it"
        problems += [Problem(f"store.{name}", text) for name in written]
    problems += inclusion_problems(config.profiles)
    for name, section in config.adapters.items():
        where = dotted(("adapters", name))
        if section.tags is None and section.profile is not None and section.profile not in config.profiles:
            known = (
                nearest(section.profile, list(config.profiles)) or "; there are none, write [profiles.NAME]"
            )
            problems.append(Problem(f"{where}.profile", f"no profile {section.profile!r}{known}"))
        for one, other in ties(patterns := list(section.treatments)):
            text = f"{patterns[one]!r} and {patterns[other]!r} can both match a path, and neither is more specific"
            problems.append(Problem(f"{where}.treatments", f"{text}; say more in one of them"))
        if isinstance(section.devices, dict):
            for path, device in section.devices.items():
                key = dotted(("adapters", name, "devices", path))
                problems += [
                    Problem(key, text) for text in _device_problems(path, device, config.plant.levels)
                ]
        elif section.devices is not None and not isinstance(section.devices, str):
            problems.append(
                Problem(f"{where}.devices", "is not a table of path = url, nor the name of a CSV file")
            )
    problems += [Problem(dotted(("tiers", name)), text) for name, text in tier_problems(config.tiers)]
    for name, tier in config.tiers.items():
        lacks = [one for one in tier.rollups if one not in config.store.resolutions]
        if tier.after.rollups is not None and lacks:
            text = f"no windows of {' and '.join(lacks)} are kept, so samples would be; add them to [store] resolutions"
            problems.append(Problem(dotted(("tiers", name, "rollups")), text))
    for name, pipeline in config.pipelines.items():
        for i, step in enumerate(pipeline.steps):
            if not isinstance(step.get("op"), str):
                problems.append(
                    Problem(
                        dotted(("pipelines", name, "steps", i)),
                        'has no operator; write { op = "window", ... }',
                    )
                )
    return problems


def _device_problems(path: str, device: Any, levels: Sequence[str]) -> list[str]:
    if path in AdapterSection.model_fields:
        return [
            "is no device; in TOML a key below a [table] line is part of that table, so move it above the line of "
            "the devices"
        ]
    found = []
    try:
        check_path(path)
    except ConfigError as e:
        found.append(e.message)
    n_levels = path.count("/") + 1
    if n_levels != len(levels) - 1:
        found.append(f"has {n_levels} levels, expected {len(levels) - 1}: {'/'.join(levels[:-1])}")
    url = device.get("url") if isinstance(device, dict) else device
    if not isinstance(url, str):
        found.append("is not a url, nor a table with one")
    else:
        try:
            check_url(url)
        except ValueError as e:
            found.append(str(e))
    return found
