"""Configuration of the OPC UA adapter: ``[adapters.<name>]`` with ``protocol = "opcua"``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field

from headrace.adapters.base import PlantFacts
from headrace.adapters.device_tables import device_parameters, device_rows
from headrace.adapters.opcua.addresses import DEVICE_NODE, NodeAddress, parse_node
from headrace.core.clock import NS
from headrace.core.errors import ConfigError
from headrace.core.paths import check_path, parse_duration_ns
from headrace.core.problems import dotted
from headrace.core.profiles import Parameter, bind
from headrace.core.profiles import Profile as ProfileOfType
from headrace.core.registry import nearest
from headrace.core.settings import DurationNs, PlainUrl, SecretRef, Section, SignalSettings

Profile = Mapping[str, SignalSettings]
"""What one type of device reports: signal name → settings."""
DeclaredType = Literal["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool", "string"]
TimeChoice = Literal["auto", "source", "server", "ingest"]
URL_FORM = "opc.tcp://host[:4840][/path][?node=...&timeout=4s]"
DEFAULT_PORT = 4_840
_COLUMNS = ("url", "node", "profile", "interval")
_Key = tuple[Any, ...]


class OpcuaDevice(Section):
    """One device, where it needs more than its url."""

    url: PlainUrl = Field(description=URL_FORM)
    node: str | None = Field(default=None, description="what {node} in the profile's addresses stands for")
    profile: str | None = Field(default=None, description="where it is not the adapter's")
    interval: DurationNs | None = Field(default=None, description="where it is not the adapter's")
    parameters: dict[str, Parameter] = Field(
        default={}, description="values of {name} in the addresses of its profile, besides {node}"
    )


class OpcuaConfig(Section):
    """Variables of OPC UA servers, subscribed to or read."""

    protocol: Literal["opcua"] = "opcua"
    profile: str = Field(default="", description="what the devices report, unless a device names its own")
    devices: str | dict[str, PlainUrl | OpcuaDevice] = Field(
        description=f"path = {URL_FORM!r}, or the name of a CSV file with columns path, url[, node, profile, interval] "
        "and one for each parameter of the profiles"
    )
    mode: Literal["subscribe", "read"] = Field(
        default="subscribe", description="be told what changes, or read everything each interval"
    )
    interval: DurationNs = Field(
        default="1s", validate_default=True, description="publishing interval, or time between two reads"
    )
    sampling: DurationNs | None = Field(
        default=None, description="how often the server looks at a variable; default: each interval"
    )
    queue_size: int = Field(
        default=10,
        ge=1,
        le=100_000,
        description="values of a variable that the server keeps between two publishings",
    )
    dead_band: dict[str, float] = Field(
        default_factory=dict,
        description="by signal: changes up to this are not told (absolute, by the server)",
    )
    arrays: dict[str, int] = Field(
        default_factory=dict,
        description="by signal: elements of an array, which become SIGNAL_0, SIGNAL_1, ...",
    )
    types: dict[str, DeclaredType] = Field(
        default_factory=dict,
        description="value types by signal, where they shall be known before the server is",
    )
    time: TimeChoice = Field(
        default="auto",
        description="whose time: the source's, the server's, that of ingestion; auto: the source's where it can be right",
    )
    security: Literal["None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = Field(
        default="None", description="security policy"
    )
    security_mode: Literal["Sign", "SignAndEncrypt"] = Field(
        default="SignAndEncrypt", description="what a security policy is used for"
    )
    cert_file: str | None = Field(default=None, description="our own certificate (PEM or DER)")
    key_file: str | None = Field(default=None, description="the key of cert_file")
    server_cert_file: str | None = Field(
        default=None,
        description="certificate to trust, or a folder of them; a server with another one is refused",
    )
    server_trust: Literal["pinned", "any"] = Field(
        default="pinned", description="any: take whatever certificate the server shows (for trials)"
    )
    user: str | None = Field(default=None, description="who we are to the server")
    password: SecretRef | None = Field(default=None, description="of that user")
    user_cert_file: str | None = Field(
        default=None, description="certificate that says who we are, instead of user"
    )
    user_key_file: str | None = Field(default=None, description="the key of user_cert_file")
    max_nodes: int = Field(
        default=1_000, ge=1, description="nodes in one request, where the server allows as many"
    )
    max_requests_per_s: float = Field(
        default=200.0, gt=0, description="cap for each connection; what a server publishes does not count"
    )
    verify: DurationNs = Field(
        default="60s", validate_default=True,
        description="how often some subscribed variables are read, to see that the subscription tells the truth",
    )  # fmt: skip
    reconnect_first: DurationNs = Field(
        default="500ms", validate_default=True, description="first wait after a loss; doubles"
    )
    reconnect_most: DurationNs = Field(
        default="30s", validate_default=True, description="longest wait between attempts"
    )


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is: what devices with the same one share a connection."""

    host: str
    port: int
    path: str = ""

    @property
    def url(self) -> str:
        """As OPC UA wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"opc.tcp://{host}:{self.port}{self.path}"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UaSignal:
    """One signal of a profile: where it is and what it means. `n_elements` is 0 for a single value."""

    name: str
    address: NodeAddress
    settings: SignalSettings
    dtype: str = ""
    n_elements: int = 0
    dead_band: float = 0.0

    @property
    def columns(self) -> list[str]:
        """Names of its sensors."""
        return [f"{self.name}_{i}" for i in range(self.n_elements)] if self.n_elements else [self.name]


@dataclass(frozen=True, slots=True)
class UaDevicePlan:
    """A configured device: where it is, how often it is asked, and what it gives."""

    path: str
    server: ServerAddress
    node: str
    timeout_s: float
    interval_ns: int
    profile: str
    signals: tuple[UaSignal, ...]

    @property
    def n_sensors(self) -> int:
        """Sensors of all signals."""
        return sum(len(signal.columns) for signal in self.signals)


def parse_url(url: str) -> tuple[ServerAddress, str, float]:
    """(server, node, timeout_s) of a device's url.

    Raises
    ------
    ConfigError : another scheme, a secret in it, an unknown option.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as e:
        raise ConfigError(f"{url!r} is not {URL_FORM}: {e}") from e
    if parts.scheme != "opc.tcp" or not parts.hostname or parts.username:
        raise ConfigError(f"{url!r} is not {URL_FORM}")
    timeout_ns = parse_duration_ns(options.pop("timeout", "4s"))
    node = options.pop("node", "")
    if options:
        name = next(iter(options))
        raise ConfigError(f"{url!r} has an unknown option {name!r}{nearest(name, ['node', 'timeout'])}")
    if timeout_ns <= 0:
        raise ConfigError(f"{url!r}: timeout must be above 0")
    return ServerAddress(parts.hostname, port or DEFAULT_PORT, parts.path.rstrip("/")), node, timeout_ns / NS


def opcua_plans(
    name: str, config: OpcuaConfig, profiles: Mapping[str, Profile], plant: PlantFacts
) -> list[UaDevicePlan]:
    """Every device of the adapter; devices of one profile share its signals.

    Raises
    ------
    ConfigError : an unknown profile, or a bad path, url, interval or address.
    """
    check_files(config, plant.folder, f"adapters.{name}")
    known: dict[_Key, tuple[UaSignal, ...]] = {}
    plans: list[UaDevicePlan] = []
    for path, fields in device_rows(config.devices, plant.folder, plant.tables):
        try:
            plans.append(_device_plan(path, fields, config, profiles, known))
            n_levels = path.count("/") + 1
            if plant.levels and n_levels != len(plant.levels) - 1:
                levels = "/".join(plant.levels[:-1])
                raise ConfigError(
                    f"the path has {n_levels} levels, expected {len(plant.levels) - 1}: {levels}"
                )
        except ConfigError as e:
            raise ConfigError(e.message, where=e.where or dotted(("adapters", name, "devices", path))) from e
    if not plans:
        raise ConfigError("there is no device; name at least one", where=f"adapters.{name}.devices")
    _check_signals(config, known, f"adapters.{name}")
    return plans


def _device_plan(
    path: str,
    fields: Mapping[str, Any],
    config: OpcuaConfig,
    profiles: Mapping[str, Profile],
    known: dict[_Key, tuple[UaSignal, ...]],
) -> UaDevicePlan:
    given = device_parameters(fields, _COLUMNS)
    server, node, timeout_s = parse_url(fields["url"])
    node = fields.get("node", node)
    name = fields.get("profile") or config.profile
    if name not in profiles:
        raise ConfigError(f"unknown profile {name!r}{nearest(name, list(profiles))}")
    key = name, *sorted(given.items())
    if key not in known:
        known[key] = _signals(name, _bound(profiles[name], given), config)
    for signal in known[key]:
        signal.address.of_device(node)
    interval = fields.get("interval", config.interval)
    interval_ns = parse_duration_ns(interval) if isinstance(interval, str) else interval
    if interval_ns <= 0:
        raise ConfigError(f"interval {interval!r} must be above 0")
    return UaDevicePlan(check_path(path), server, node, timeout_s, interval_ns, name, known[key])


def _bound(profile: Profile, given: Mapping[str, Parameter]) -> Profile:
    """The profile of devices that give these parameters; `{node}` stays, so that they share it."""
    own = profile.parameters if isinstance(profile, ProfileOfType) else {}
    return bind(ProfileOfType(profile, {**own, "node": DEVICE_NODE}), given)


def _signals(name: str, profile: Profile, config: OpcuaConfig) -> tuple[UaSignal, ...]:
    signals: list[UaSignal] = []
    for key, settings in profile.items():
        try:
            check_path(key)
            address = parse_node(settings.address)
        except ConfigError as e:
            raise ConfigError(e.message, where=f"profiles.{name}.{key}") from e
        signals.append(
            UaSignal(
                key, address, settings, config.types.get(key, ""), config.arrays.get(key, 0),
                config.dead_band.get(key, 0.0),
            )
        )  # fmt: skip
    columns = [column for signal in signals for column in signal.columns]
    if not columns:
        raise ConfigError(f"profile {name!r} has no signals", where=f"profiles.{name}")
    if len(set(columns)) != len(columns):
        twice = next(c for c in columns if columns.count(c) > 1)
        raise ConfigError(f"signal {twice!r} is there twice; rename one", where=f"profiles.{name}")
    return tuple(signals)


def _check_signals(config: OpcuaConfig, known: Mapping[_Key, tuple[UaSignal, ...]], where: str) -> None:
    """What is said of single signals must be of signals that exist, and make sense."""
    names = [signal.name for signals in known.values() for signal in signals]
    for table in ("dead_band", "arrays", "types"):
        said = cast("dict[str, Any]", getattr(config, table))
        for key, value in said.items():
            at = dotted((*where.split("."), table, key))
            if key not in names:
                raise ConfigError(f"no profile has a signal {key!r}{nearest(key, names)}", where=at)
            if table == "dead_band" and not 0 <= value < float("inf"):
                raise ConfigError(f"{value} is no dead band; it is 0 or more", where=at)
            if table == "arrays" and not 1 <= value <= 4_096:
                raise ConfigError(f"{value} elements; an array has 1 to 4,096", where=at)
            if table == "types" and value == "string" and key in config.arrays:
                raise ConfigError("arrays of text are not taken apart", where=at)


def check_files(config: OpcuaConfig, folder: Path, where: str) -> None:
    """Make sure that what security needs is there.

    Raises
    ------
    ConfigError : a file is missing, or settings don't go together.
    """
    for key in ("cert_file", "key_file", "server_cert_file", "user_cert_file", "user_key_file"):
        name = getattr(config, key)
        if name is not None and not (folder / name).exists():
            raise ConfigError(f"no file {folder / name}", where=f"{where}.{key}")
    for cert, key in (("cert_file", "key_file"), ("user_cert_file", "user_key_file")):
        if (getattr(config, cert) is None) != (getattr(config, key) is None):
            raise ConfigError(
                f"{cert} and {key} go together: a certificate and its key", where=f"{where}.{cert}"
            )
    if config.security != "None":
        if config.cert_file is None:
            raise ConfigError(f"{config.security} needs our own certificate", where=f"{where}.cert_file")
        if config.server_cert_file is None and config.server_trust == "pinned":
            raise ConfigError(
                "name the server's certificate, or a folder of them; for trials: server_trust = 'any'",
                where=f"{where}.server_cert_file",
            )
    elif config.cert_file is not None or config.server_cert_file is not None:
        raise ConfigError(
            "certificates are used with a policy: write security = 'Basic256Sha256'",
            where=f"{where}.security",
        )
    if config.password is not None and config.user is None:
        raise ConfigError("a password needs a user; write user = ...", where=f"{where}.password")
    if config.user is not None and config.user_cert_file is not None:
        raise ConfigError(
            "say who we are once: by user or by user_cert_file", where=f"{where}.user_cert_file"
        )
