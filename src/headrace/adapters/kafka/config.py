"""Configuration of the Kafka adapter: ``[adapters.<name>]`` with ``protocol = "kafka"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException
from pydantic import Field

from headrace.adapters.payloads.base import PayloadError, RuleSettings
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.payloads.topics import TopicDialect
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.settings import DurationNs, SecretRef, Section

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
_BROKER = re.compile(r"(?:[^\s:/@\[\],]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?")
_LITERAL = re.compile(r"[A-Za-z0-9._-]*")
_MS = 1_000_000
_PLACE = re.compile(r"^(?:\[thrd:[^\]]*\]: )?(?:GroupCoordinator: )?(?:[a-z_]+://)?([^/ ]+?)(?:/\w+)?: ")
_NOISE = re.compile(r" \(after [^)]*\)|Connect to ipv[46]#\S+ failed: |Failed to create consumer: ")
_OWNED = {
    "bootstrap.servers": "brokers", "metadata.broker.list": "brokers", "group.id": "group", "group.instance.id": "member",
    "group.protocol": "", "client.id": "", "auto.offset.reset": "start", "enable.auto.commit": "", "enable.partition.eof": "",
    "enable.auto.offset.store": "", "partition.assignment.strategy": "", "security.protocol": "tls, user and password",
    "ssl.ca.location": "ca_file", "ssl.certificate.location": "cert_file", "ssl.key.location": "key_file",
    "socket.timeout.ms": "timeout", "api.version.request.timeout.ms": "timeout",
    "socket.connection.setup.timeout.ms": "timeout", "reconnect.backoff.ms": "reconnect_first", "reconnect.backoff.max.ms": "reconnect_most",
    "log_level": "", "debug": "",
}  # fmt: skip
"""Settings of the library that are ours, and the key of the plant file that sets them."""
_SECRET = re.compile(r"sasl\.|.*(?:password|secret|token|\.pem$|oauth|_cb$|\.callback)")


class KafkaConfig(Section):
    """Messages of a cluster, by topic rules."""

    protocol: Literal["kafka"] = "kafka"
    brokers: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        description='some of the cluster\'s brokers, ["host:9092"]; they name the others'
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        description="whose progress the cluster keeps; members of a group share the partitions. Default: headrace-<adapter>",
    )
    member: str | None = Field(
        default=None,
        min_length=1,
        description="our name in the group, ours alone: after a restart our partitions come back at once",
    )
    start: str = Field(
        default="earliest",
        description="where to begin when the group is new: earliest, latest, or a time as in 2026-11-01T00:00:00Z",
    )
    tls: bool = Field(default=False, description="whether the brokers speak TLS")
    ca_file: str | None = Field(
        default=None, description="certificates of authorities to trust; default: the system's"
    )
    cert_file: str | None = Field(
        default=None, description="our own certificate, where the brokers ask for one"
    )
    key_file: str | None = Field(default=None, description="the key of cert_file")
    key_password: SecretRef | None = Field(default=None, description="of key_file, where it has one")
    user: str | None = Field(default=None, description="who we are to the brokers (SASL)")
    password: SecretRef | None = Field(default=None, description="of that user")
    mechanism: Mechanism = Field(default="PLAIN", description="how user and password are sent")
    timeout: DurationNs = Field(
        default="10s", validate_default=True, description="longest wait for an answer of a broker"
    )
    max_devices: int = Field(
        default=100_000, ge=1, description="devices that topics may name; more are refused"
    )
    reconnect_first: DurationNs = Field(
        default="500ms", validate_default=True, description="first wait after a loss; doubles"
    )
    reconnect_most: DurationNs = Field(
        default="30s", validate_default=True, description="longest wait between attempts"
    )
    separator: Literal[".", "-", "_"] = Field(default=".", description="between the levels of a topic's name")
    topics: dict[str, RuleSettings] = Field(
        description='"plant.{area}" = { path = "site/{area}/{message_key}/{key}" }'
    )
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="more settings of librdkafka, by its own names; none that another key here sets, and no secrets",
    )

    @property
    def dialect(self) -> TopicDialect:
        """What our topics look like."""
        return TopicDialect(self.separator, has_keys=True)


@dataclass(frozen=True, slots=True)
class StartAt:
    """Where a group begins that has no progress yet: the end of each partition, or what came at or after a time.

    Parameters
    ----------
    ts_ms : milliseconds since 1970; None for the end. With `is_earliest` all that is there.
    """

    is_earliest: bool = True
    ts_ms: int | None = None


def start_at(text: str, timezone: str, where: str) -> StartAt:
    """Read ``start``.

    Raises
    ------
    ConfigError : it is neither of the words nor a time.
    """
    if text in ("earliest", "latest"):
        return StartAt(text == "earliest")
    try:
        return StartAt(False, TimeReader("auto", timezone).read(text) // _MS)
    except PayloadError:
        raise ConfigError(
            f"{text!r} is not earliest, latest, or a time as in 2026-11-01T00:00:00Z", where=f"{where}.start"
        ) from None


def check_config(config: KafkaConfig, folder: Path, where: str) -> None:
    """Check what no single key says.

    Raises
    ------
    ConfigError : a broker that is none, TLS files without TLS or that don't exist, a user without a password, a topic
        that can't be one, an option that is ours or a secret.
    """
    for broker in config.brokers:
        match = _BROKER.fullmatch(broker)
        if match is None or not 0 < int(match[1] or 1) < 65_536:
            raise ConfigError(f"{broker!r} is not host:9092", where=f"{where}.brokers")
    for key in ("ca_file", "cert_file", "key_file"):
        name = getattr(config, key)
        if name is not None and not config.tls:
            raise ConfigError("needs TLS: write tls = true", where=f"{where}.{key}")
        if name is not None and not (folder / name).is_file():
            raise ConfigError(f"no file {folder / name}", where=f"{where}.{key}")
    if (config.cert_file is None) != (config.key_file is None):
        raise ConfigError(
            "a certificate needs its key_file, and a key its cert_file", where=f"{where}.cert_file"
        )
    if (config.user is None) != (config.password is None):
        raise ConfigError("a user needs a password, and a password a user", where=f"{where}.password")
    for topic in config.topics:
        literal = re.sub(r"\{[^{}]*\}|[+#]", "", topic)
        if not _LITERAL.fullmatch(literal):
            raise ConfigError(
                f"topic {topic!r}: names of topics have letters, digits and . _ -; its levels are parted by "
                f"{config.separator!r}",
                where=f"{where}.topics",
            )
    _check_options(config.options, where)


def _check_options(options: Mapping[str, Any], where: str) -> None:
    for name in options:
        if name in _OWNED:
            instead = f"; write {_OWNED[name]}" if _OWNED[name] else ""
            raise ConfigError(f"{name!r} is set by Headrace{instead}", where=f"{where}.options")
        if _SECRET.match(name):
            raise ConfigError(
                f"{name!r} can't be given here; secrets are {{ env }} or {{ file }} under password and key_password",
                where=f"{where}.options",
            )
    if options:
        # The library knows its settings, and tells only when a consumer is made; this one has nobody to talk to.
        try:
            Consumer({"group.id": "check", "log_level": 0, **options})
        except KafkaException as e:
            raise ConfigError(reason_of_library(e), where=f"{where}.options") from e


def library_settings(config: KafkaConfig, name: str, folder: Path) -> dict[str, Any]:
    """The settings of the library for a consumer of ours; secrets are read now.

    Raises
    ------
    ConfigError : a secret can't be read.
    """
    timeout_ms = min(max(10, config.timeout // _MS), 300_000)
    out: dict[str, Any] = {
        "topic.metadata.refresh.interval.ms": 30_000, "topic.blacklist": "^__.*", "session.timeout.ms": 10_000,
        "queued.max.messages.kbytes": 32_768, **config.options,
        "bootstrap.servers": ",".join(config.brokers), "group.id": group_of(config, name), "client.id": f"headrace-{name}",
        "auto.offset.reset": "earliest", "enable.auto.commit": False, "enable.auto.offset.store": False,
        "socket.timeout.ms": timeout_ms, "api.version.request.timeout.ms": timeout_ms,
        "socket.connection.setup.timeout.ms": max(1_000, timeout_ms), "log_level": 0, "log.connection.close": False,
        "reconnect.backoff.ms": max(1, config.reconnect_first // _MS),
        "reconnect.backoff.max.ms": max(1, config.reconnect_first // _MS, config.reconnect_most // _MS),
        "security.protocol": f"SASL_{'SSL' if config.tls else 'PLAINTEXT'}" if config.user else "SSL" if config.tls else "PLAINTEXT",
    }  # fmt: skip
    if config.member is not None:
        out["group.instance.id"] = config.member
    if config.tls:
        out["ssl.ca.location"] = str(folder / config.ca_file) if config.ca_file else "probe"
    if config.cert_file is not None and config.key_file is not None:
        out["ssl.certificate.location"] = str(folder / config.cert_file)
        out["ssl.key.location"] = str(folder / config.key_file)
    if config.key_password is not None:
        out["ssl.key.password"] = config.key_password.read(folder)
    if config.user is not None and config.password is not None:
        out["sasl.mechanism"] = config.mechanism
        out["sasl.username"], out["sasl.password"] = config.user, config.password.read(folder)
    return out


def sentence(error: KafkaError) -> str:
    """What an error of the library says, without what only its authors need."""
    return _NOISE.sub("", _PLACE.sub(r"\1: ", error.str())).strip()


def reason_of_library(error: KafkaException) -> str:
    """The same of an exception."""
    return sentence(error.args[0])


def group_of(config: KafkaConfig, name: str) -> str:
    """Whose progress the cluster keeps for us."""
    return config.group or f"headrace-{name}"


def message_time(ts_ms: int, offset: int) -> int:
    """The time that a message gives to samples without one: its own, and in its millisecond a place by its offset.

    So two messages of a partition do not meet, and a message that comes again has the time it had. Messages that
    have no time give `NO_TIME`.
    """
    if not 0 < ts_ms < -NO_TIME // _MS - 1:
        return NO_TIME
    return ts_ms * _MS + offset % 10_000 * 100
