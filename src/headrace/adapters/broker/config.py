"""Where a broker is, how to get in, and how our session there behaves: what every adapter of a broker is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from headrace.core.errors import ConfigError
from headrace.core.settings import DurationNs, PlainUrl, SecretRef, Section

_URL = "mqtt://host[:1883] or mqtts://host[:8883]"
_PORTS = {"mqtt": 1_883, "mqtts": 8_883}


class BrokerSection(Section):
    """A broker and our session at it."""

    protocol: str = Field(default="", description="of the adapter")
    url: PlainUrl = Field(description=_URL)
    user: str | None = Field(default=None, description="who we are to the broker")
    password: SecretRef | None = Field(default=None, description="of that user")
    ca_file: str | None = Field(
        default=None, description="certificates of authorities to trust; default: the system's"
    )
    cert_file: str | None = Field(
        default=None, description="our own certificate, where the broker asks for one"
    )
    key_file: str | None = Field(default=None, description="the key of cert_file")
    client_id: str | None = Field(
        default=None,
        pattern=r"[ -~]{1,128}",
        description="names our session at the broker, must be ours alone; default: headrace-<adapter>",
    )
    version: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="of the protocol; auto tries 5, which lets us slow the broker, then 3.1.1"
    )
    qos: Literal[0, 1] = Field(default=1, description="1: nothing acknowledged is lost; 0: what comes, comes")
    keepalive: DurationNs = Field(default="60s", validate_default=True, description="between signs of life")
    session_expiry: DurationNs = Field(
        default="7d",
        validate_default=True,
        description="how long the broker keeps messages while we are away",
    )
    receive_maximum: int = Field(
        default=1_000, ge=1, le=65_535, description="unacknowledged messages at a time (version 5)"
    )
    take_retained: bool = Field(
        default=False, description="also take what a topic retained before we subscribed"
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


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker is and how to get in; files are whole paths, secrets are read when needed."""

    host: str
    port: int
    is_tls: bool
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def broker_address(config: BrokerSection, folder: Path, where: str) -> BrokerAddress:
    """The broker's address from the configuration.

    Raises
    ------
    ConfigError : not such a url, TLS files without TLS or that don't exist, a password without a user.
    """
    try:
        parts = urlsplit(config.url)
        port = parts.port
    except ValueError as e:
        raise ConfigError(f"{config.url!r} is not {_URL}: {e}", where=f"{where}.url") from e
    if (
        parts.scheme not in _PORTS
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.username
    ):
        raise ConfigError(f"{config.url!r} is not {_URL}", where=f"{where}.url")
    is_tls = parts.scheme == "mqtts"
    files: dict[str, Path | None] = {}
    for key in ("ca_file", "cert_file", "key_file"):
        name = getattr(config, key)
        files[key] = None if name is None else folder / name
        if name is not None and not is_tls:
            raise ConfigError("needs TLS: write mqtts:// in the url", where=f"{where}.{key}")
        if name is not None and not (folder / name).is_file():
            raise ConfigError(f"no file {folder / name}", where=f"{where}.{key}")
    if config.password is not None and config.user is None:
        raise ConfigError("a password needs a user; write user = ...", where=f"{where}.password")
    return BrokerAddress(parts.hostname, port or _PORTS[parts.scheme], is_tls, **files)
