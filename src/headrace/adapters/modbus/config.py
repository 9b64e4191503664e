"""Configuration of the Modbus TCP adapter: ``[adapters.<name>]`` with ``protocol = "modbus"``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field

from headrace.adapters.base import PlantFacts
from headrace.adapters.device_tables import device_rows
from headrace.adapters.payloads.registers import (
    MAX_BITS,
    MAX_REGISTERS,
    Numbering,
    ReadMap,
    RegisterTag,
    compile_read_map,
    parse_address,
)
from headrace.core.clock import NS
from headrace.core.errors import ConfigError
from headrace.core.paths import check_path, parse_duration_ns
from headrace.core.problems import dotted
from headrace.core.registry import nearest
from headrace.core.settings import DurationNs, PlainUrl, Section, SignalSettings

Profile = Mapping[str, SignalSettings]
"""What one type of device reports: signal name → settings."""
_URL = "modbus+tcp://host[:502][?unit=1&timeout=1s]"


class DeviceSettings(Section):
    """One device, where it needs more than its url."""

    url: PlainUrl = Field(description=_URL)
    profile: str | None = Field(default=None, description="where it is not the adapter's")
    interval: DurationNs | None = Field(default=None, description="where it is not the adapter's")


class ModbusConfig(Section):
    """Devices that are polled over Modbus TCP."""

    protocol: Literal["modbus"] = "modbus"
    profile: str = Field(default="", description="what the devices report, unless a device names its own")
    interval: DurationNs = Field(
        default="1s", validate_default=True, description="time between polls of a device"
    )
    devices: str | dict[str, PlainUrl | DeviceSettings] = Field(
        description=f"path = {_URL!r}, or the name of a CSV file with columns path, url[, profile, interval]"
    )
    numbering: Numbering = Field(
        default=Numbering.ZERO, strict=False, description="how the profiles' addresses count"
    )
    bridge_gaps: int = Field(
        default=0, ge=0, le=MAX_REGISTERS, description="unconfigured registers read to join blocks"
    )
    max_registers: int = Field(
        default=MAX_REGISTERS, ge=4, le=MAX_REGISTERS, description="registers in one request"
    )
    max_bits: int = Field(default=MAX_BITS, ge=1, le=MAX_BITS, description="coils or inputs in one request")
    max_requests_per_s: float = Field(default=100.0, gt=0, description="cap for each connection")
    reconnect_first: DurationNs = Field(
        default="500ms", validate_default=True, description="first wait after a loss; doubles"
    )
    reconnect_most: DurationNs = Field(
        default="30s", validate_default=True, description="longest wait between attempts"
    )


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A configured device: where it is, how often it is read, and what it gives."""

    path: str
    host: str
    port: int
    unit: int
    timeout_s: float
    interval_ns: int
    read_map: ReadMap


def parse_url(url: str) -> tuple[str, int, int, float]:
    """(host, port, unit, timeout_s) of a device's url.

    Raises
    ------
    ConfigError : another scheme, a secret in it, an unknown option, or numbers out of range.
    """
    try:
        parts = urlsplit(url)
        port = 502 if parts.port is None else parts.port
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as e:
        raise ConfigError(f"{url!r} is not {_URL}: {e}") from e
    if parts.scheme != "modbus+tcp" or not parts.hostname or parts.path.strip("/") or parts.username:
        raise ConfigError(f"{url!r} is not {_URL}")
    timeout_ns = parse_duration_ns(options.pop("timeout", "1s"))
    unit = options.pop("unit", "1")
    if options:
        name = next(iter(options))
        raise ConfigError(f"{url!r} has an unknown option {name!r}{nearest(name, ['timeout', 'unit'])}")
    if not unit.isdecimal() or int(unit) > 255 or timeout_ns <= 0:
        raise ConfigError(f"{url!r}: unit is 0 to 255 and timeout above 0")
    return parts.hostname, port, int(unit), timeout_ns / NS


def device_plans(
    name: str, config: ModbusConfig, profiles: Mapping[str, Profile], plant: PlantFacts
) -> list[DevicePlan]:
    """Every device of the adapter with its read map; devices of one profile share one.

    Raises
    ------
    ConfigError : an unknown profile, or a bad path, url, interval or address.
    """
    maps: dict[str, ReadMap] = {}
    plans: list[DevicePlan] = []
    for path, fields in device_rows(config.devices, plant.folder, plant.tables):
        try:
            plans.append(_device_plan(path, fields, config, profiles, maps))
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
    return plans


def _device_plan(
    path: str,
    fields: Mapping[str, Any],
    config: ModbusConfig,
    profiles: Mapping[str, Profile],
    maps: dict[str, ReadMap],
) -> DevicePlan:
    unknown = set(fields) - {"url", "profile", "interval"}
    if unknown:
        raise ConfigError(f"unknown column {min(unknown)!r}; known: path, url, profile, interval")
    host, port, unit, timeout_s = parse_url(fields["url"])
    name = fields.get("profile") or config.profile
    if name not in maps:
        if name not in profiles:
            raise ConfigError(f"unknown profile {name!r}{nearest(name, list(profiles))}")
        maps[name] = _read_map(name, profiles[name], config)
    interval_ns = parse_duration_ns(fields["interval"]) if "interval" in fields else config.interval
    if interval_ns <= 0:
        raise ConfigError(f"interval {fields['interval']!r} must be above 0")
    return DevicePlan(check_path(path), host, port, unit, timeout_s, interval_ns, maps[name])


def _read_map(name: str, profile: Profile, config: ModbusConfig) -> ReadMap:
    tags = []
    for signal, settings in profile.items():
        try:
            check_path(signal)
            address = parse_address(settings.address, config.numbering)
        except ConfigError as e:
            raise ConfigError(e.message, where=f"profiles.{name}.{signal}") from e
        tags.append(RegisterTag(settings.column(signal), address))
    return compile_read_map(tags, config.bridge_gaps, config.max_registers, config.max_bits)
