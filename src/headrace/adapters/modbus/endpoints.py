"""Where devices are: urls as endpoints, which have a connection each, and units behind them.

``modbus+tcp://host:502?unit=1`` is Modbus TCP, ``modbus+tls://host:802`` the same inside TLS,
``modbus+rtu:///dev/ttyUSB0?baud=9600&parity=E&stop=1`` a serial line, ``modbus+rtutcp://host:port`` a serial line
behind a device server that hands on its bytes.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.adapters.meters import reason_of
from headrace.core.clock import NS
from headrace.core.errors import ConfigError
from headrace.core.paths import parse_duration_ns
from headrace.core.registry import nearest

URLS = (
    "modbus+tcp://host[:502][?unit=1&timeout=1s], modbus+tls://, modbus+rtutcp:// or modbus+rtu:///dev/tty..."
)
BAUDS = (300, 600, 1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 921_600)
N_UNITS_SERIAL = 247


class ModbusLink(StrEnum):
    """How bytes go to a device: the scheme of its url, without ``modbus+``."""

    TCP = "tcp"
    TLS = "tls"
    RTU = "rtu"
    RTU_TCP = "rtutcp"

    @property
    def is_rtu(self) -> bool:
        """Whether frames end with a checksum and have no transaction id."""
        return self in (ModbusLink.RTU, ModbusLink.RTU_TCP)


_PORTS = {ModbusLink.TCP: 502, ModbusLink.TLS: 802}
_LINE_OPTIONS = ("baud", "parity", "stop", "echo")
_OPTIONS = {
    ModbusLink.TCP: ("unit", "timeout"),
    ModbusLink.TLS: ("unit", "timeout", "name"),
    ModbusLink.RTU: ("unit", "timeout", *_LINE_OPTIONS),
    ModbusLink.RTU_TCP: ("unit", "timeout", "echo"),
}


@dataclass(frozen=True, slots=True)
class DeviceTls:
    """Whom to trust, and who we are: whole paths; None for the system's authorities, and for nobody."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """BlockRead the files; anew for each connection, for certificates get renewed.

        Raises
        ------
        ConfigError : a file is no certificate, or certificate and key don't belong together.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as e:
            raise ConfigError(f"TLS files can't be used: {tls_reason(e)}") from e
        return context


@dataclass(frozen=True, slots=True)
class SerialLine:
    """How a serial line is set; data bits are always 8.

    Parameters
    ----------
    parity : N, E or O.
    """

    baud: int = 19_200
    parity: str = "E"
    stop: int = 1

    @property
    def character_s(self) -> float:
        """Seconds that a byte takes: start, 8 data, parity and stop bits."""
        return (9 + (self.parity != "N") + self.stop) / self.baud

    @property
    def silence_s(self) -> float:
        """How long the line is silent between two frames: 3.5 characters, above 19,200 baud 1.75 ms."""
        return 0.00175 if self.baud > 19_200 else 3.5 * 11 / self.baud


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What has one connection: a host and port, or a serial line, and how it is spoken to.

    Parameters
    ----------
    host : its name; the device file of a serial line. server_name : whom the certificate names, where that is not
        the host.
    """

    link: ModbusLink
    host: str
    port: int = 0
    line: SerialLine | None = None
    has_echo: bool = False
    tls: DeviceTls | None = None
    server_name: str = ""

    def __str__(self) -> str:
        return self.host if self.link is ModbusLink.RTU else f"{self.host}:{self.port}"

    def url(self, unit: int) -> str:
        """What to write in a plant file for one of its units."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        out = f"modbus+{self.link}://{host if self.line is not None else f'{host}:{self.port}'}?unit={unit}"
        if self.line is not None:
            out += f"&baud={self.line.baud}&parity={self.line.parity}&stop={self.line.stop}"
        out += "&echo=1" if self.has_echo else ""
        return out + (f"&name={self.server_name}" if self.server_name else "")

    @property
    def place(self) -> tuple[str, int]:
        """Host and port: what can have but one connection."""
        return self.host, self.port


class DeviceUrl(NamedTuple):
    """A device's url, taken apart."""

    endpoint: Endpoint
    unit: int
    timeout_s: float


def parse_url(url: str, tls: DeviceTls | None = None) -> DeviceUrl:
    """Endpoint, unit and deadline of a device's url.

    Parameters
    ----------
    tls : whom a ``modbus+tls`` endpoint trusts.

    Raises
    ------
    ConfigError : another scheme, a secret in it, an unknown option, or numbers out of range.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as e:
        raise ConfigError(f"{url!r} is not {URLS}: {e}") from e
    name = parts.scheme.removeprefix("modbus+")
    if name == parts.scheme or name not in list(ModbusLink) or parts.username:
        raise ConfigError(f"{url!r} is not {URLS}")
    link = ModbusLink(name)
    for key in options:
        if key not in _OPTIONS[link]:
            raise ConfigError(f"{url!r} has an unknown option {key!r}{nearest(key, list(_OPTIONS[link]))}")
    if link is ModbusLink.RTU:
        if parts.netloc or len(parts.path) < 2:
            raise ConfigError(
                f"{url!r} names no serial line; write modbus+rtu:///dev/ttyUSB0?baud=9600&unit=1"
            )
        endpoint = Endpoint(link, unquote(parts.path), 0, _line(url, options), _echo(url, options))
    else:
        port = _PORTS.get(link) if port is None else port
        if not parts.hostname or parts.path.strip("/") or port is None:
            raise ConfigError(f"{url!r} is not {URLS}" + ("" if port else "; rtutcp needs a port"))
        files = (tls or DeviceTls()) if link is ModbusLink.TLS else None
        endpoint = Endpoint(
            link, parts.hostname, port, None, _echo(url, options), files, options.get("name", "")
        )
    return DeviceUrl(endpoint, *_unit_and_timeout(url, link, options))


def _unit_and_timeout(url: str, link: ModbusLink, options: dict[str, str]) -> tuple[int, float]:
    timeout_ns = parse_duration_ns(options.get("timeout", "1s"))
    unit = options.get("unit", "1")
    low, high = (1, N_UNITS_SERIAL) if link.is_rtu else (0, 255)
    if not unit.isdecimal() or not low <= int(unit) <= high or timeout_ns <= 0:
        raise ConfigError(f"{url!r}: unit is {low} to {high} and timeout above 0")
    return int(unit), timeout_ns / NS


def _line(url: str, options: dict[str, str]) -> SerialLine:
    baud, parity, stop = options.get("baud", "19200"), options.get("parity", "E"), options.get("stop", "1")
    if baud not in map(str, BAUDS):
        raise ConfigError(f"{url!r}: baud is one of {', '.join(map(str, BAUDS))}")
    if parity.upper() not in ("N", "E", "O") or stop not in ("1", "2"):
        raise ConfigError(f"{url!r}: parity is N, E or O, and stop 1 or 2")
    return SerialLine(int(baud), parity.upper(), int(stop))


def _echo(url: str, options: dict[str, str]) -> bool:
    echo = options.get("echo", "0")
    if echo not in ("0", "1"):
        raise ConfigError(f"{url!r}: echo is 0, or 1 where what is sent is heard")
    return echo == "1"


def tls_reason(error: OSError) -> str:
    """Why TLS or the system refused, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; see ca_file"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return reason_of(error)
