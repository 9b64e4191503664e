"""Configuration of the Modbus adapter: ``[adapters.<name>]`` with ``protocol = "modbus"``."""

from __future__ import annotations

import zoneinfo
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from headrace.adapters.base import PlantFacts
from headrace.adapters.device_tables import device_parameters, device_rows
from headrace.adapters.modbus.endpoints import URLS, DeviceTls, DeviceUrl, Endpoint, ModbusLink, parse_url
from headrace.adapters.payloads.register_addresses import (
    MAX_BITS,
    MAX_REGISTERS,
    STR,
    Numbering,
    RegisterAddress,
    parse_address,
)
from headrace.adapters.payloads.registers import PartMap, ReadMap, RegisterTag, compile_read_map
from headrace.core.clock import NO_TIME
from headrace.core.dead_bands import DeadBands, SignalBand
from headrace.core.errors import ConfigError
from headrace.core.grids import composed
from headrace.core.layouts import Column
from headrace.core.paths import check_path, parse_duration_ns
from headrace.core.problems import dotted
from headrace.core.profiles import Parameter, bind
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import DurationNs, PlainUrl, Section, SignalSettings

Profile = Mapping[str, SignalSettings]
"""What one type of device reports: signal name → settings."""
NEVER_NS = 2**63 - 1
_COLUMNS = ("url", "profile", "interval")


class DeviceSettings(Section):
    """One device, where it needs more than its url."""

    url: PlainUrl = Field(description=URLS)
    profile: str | None = Field(default=None, description="where it is not the adapter's")
    interval: DurationNs | None = Field(default=None, description="where it is not the adapter's")
    parameters: dict[str, Parameter] = Field(
        default={}, description="values of {name} in the addresses of its profile: { base = 100 }"
    )


class ModbusConfig(Section):
    """Devices that are polled over Modbus: TCP, TLS, serial lines."""

    protocol: Literal["modbus"] = "modbus"
    profile: str = Field(default="", description="what the devices report, unless a device names its own")
    interval: DurationNs = Field(
        default="1s", validate_default=True, description="time between polls of a device"
    )
    devices: str | dict[str, PlainUrl | DeviceSettings] = Field(
        description=f"path = {URLS!r}, or the name of a CSV file with columns path, url[, profile, interval] "
        "and one for each parameter of the profiles"
    )
    ca_file: str | None = Field(
        default=None, description="modbus+tls: certificates of authorities to trust; default: the system's"
    )
    cert_file: str | None = Field(
        default=None, description="modbus+tls: our own certificate, where devices ask for one"
    )
    key_file: str | None = Field(
        default=None, description="modbus+tls: its private key, where it is not in the same file"
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
    """A configured device: where it is, how often it is read, and what it gives.

    Parameters
    ----------
    eras : (from when on, read map): the same registers with other grids, once a calibration is passed.
    profile : the settings of its signals. bands : dead bands by the name of the column. adapter : its name.
    """

    path: str
    url: DeviceUrl
    interval_ns: int
    read_map: ReadMap
    eras: tuple[tuple[int, ReadMap], ...] = ()
    profile: Profile = field(default_factory=dict)
    bands: Mapping[str, SignalBand] = field(default_factory=dict)
    adapter: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """What it has its connection with."""
        return self.url.endpoint

    def dead_bands(self, part: PartMap) -> DeadBands | None:
        """The dead bands of a part's columns."""
        bands = [self.bands.get(column.name) for column in part.layout.columns]
        return DeadBands.of(bands, part.layout, self.adapter)

    def define(self, read_map: ReadMap, directory: SensorDirectory) -> tuple[int, ...]:
        """Make its groups known as a read map has them: their slots. Raises `ConfigError`: another has one of the sensors."""
        slots = tuple(directory.define(self.path, part.layout, part.part) for part in read_map.parts)
        for slot, part in zip(slots, read_map.parts, strict=True):
            directory.set_dead_bands([slot], self.dead_bands(part))
        return slots

    def map_at(self, ts_ns: int) -> ReadMap:
        """The read map that holds at a time."""
        number = bisect_right(self.eras, ts_ns, key=lambda era: era[0])
        return self.eras[number - 1][1] if number else self.read_map

    def changes_after(self, ts_ns: int) -> int:
        """When another read map holds; `NEVER_NS` where none does."""
        number = bisect_right(self.eras, ts_ns, key=lambda era: era[0])
        return self.eras[number][0] if number < len(self.eras) else NEVER_NS


def device_plans(
    name: str, config: ModbusConfig, profiles: Mapping[str, Profile], plant: PlantFacts
) -> list[DevicePlan]:
    """Every device of the adapter with its read map; devices with one profile and parameters share one.

    Raises
    ------
    ConfigError : an unknown profile, or a bad path, url, interval or address.
    """
    planner = _Planner(name, config, profiles, plant)
    plans: list[DevicePlan] = []
    for path, fields in device_rows(config.devices, plant.folder, plant.tables):
        try:
            plans.append(planner.plan(path, fields))
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
    _check_lines(name, plans)
    if not any(plan.endpoint.link is ModbusLink.TLS for plan in plans) and planner.tls != DeviceTls():
        raise ConfigError("TLS files need a device at modbus+tls://", where=f"adapters.{name}")
    return plans


def tls_files(name: str, config: ModbusConfig, folder: Path) -> DeviceTls:
    """The files for TLS. Raises `ConfigError` where one does not exist."""
    files: dict[str, Path | None] = {}
    for key in ("ca_file", "cert_file", "key_file"):
        written = getattr(config, key)
        files[key] = None if written is None else folder / written
        if written is not None and not (folder / written).is_file():
            raise ConfigError(f"no file {folder / written}", where=f"adapters.{name}.{key}")
    return DeviceTls(**files)


def _check_lines(name: str, plans: Iterable[DevicePlan]) -> None:
    """All devices of a line or port speak to it in one way."""
    known: dict[tuple[str, int], DevicePlan] = {}
    for plan in plans:
        first = known.setdefault(plan.endpoint.place, plan)
        if first.endpoint != plan.endpoint:
            raise ConfigError(
                f"{plan.endpoint} is set otherwise for {first.path!r}; all devices of one line or port need the same "
                f"scheme and options",
                where=dotted(("adapters", name, "devices", plan.path)),
            )


class _Made(NamedTuple):
    """What devices with one profile and parameters have in common."""

    profile: Profile
    read_map: ReadMap
    eras: tuple[tuple[int, ReadMap], ...]
    bands: dict[str, SignalBand]


class _Planner:
    """Makes the plans of an adapter's devices; what several of them need is made once."""

    def __init__(
        self, name: str, config: ModbusConfig, profiles: Mapping[str, Profile], plant: PlantFacts
    ) -> None:
        self._name = name
        self._config = config
        self._profiles = profiles
        self._zone = zoneinfo.ZoneInfo(plant.timezone)
        self.tls = tls_files(name, config, plant.folder)
        self._made: dict[Any, _Made] = {}
        self._parts: dict[Any, tuple[PartMap, ...]] = {}

    def plan(self, path: str, fields: Mapping[str, Any]) -> DevicePlan:
        """One device."""
        url = parse_url(fields["url"], self.tls)
        name = fields.get("profile") or self._config.profile
        if name not in self._profiles:
            raise ConfigError(f"unknown profile {name!r}{nearest(name, list(self._profiles))}")
        given = device_parameters(fields, _COLUMNS)
        key = name, tuple(sorted(given.items()))
        if key not in self._made:
            self._made[key] = self._make(name, given)
        interval_ns = parse_duration_ns(fields["interval"]) if "interval" in fields else self._config.interval
        if interval_ns <= 0:
            raise ConfigError(f"interval {fields['interval']!r} must be above 0")
        made = self._made[key]
        return DevicePlan(
            check_path(path), url, interval_ns, made.read_map, made.eras, made.profile, made.bands, self._name
        )

    def _make(self, name: str, given: Mapping[str, Parameter]) -> _Made:
        profile = bind(self._profiles[name], given)
        addresses, bands = {}, {}
        for signal, settings in profile.items():
            try:
                check_path(signal)
                addresses[signal] = parse_address(settings.address, self._config.numbering)
                if settings.band is not None:
                    if addresses[signal].type == STR:
                        raise ConfigError("a text has no dead_band")
                    tag = RegisterTag(Column(signal), addresses[signal])
                    bands.update({one.column.name: settings.band for one in tag.expand()})
            except ConfigError as e:
                raise ConfigError(e.message, where=f"profiles.{name}.{signal}") from e
        changes = sorted({at for one in profile.values() for at in one.changes_ns(self._zone)})
        read_map = self._read_map(name, profile, addresses, NO_TIME)
        eras = tuple((at, self._read_map(name, profile, addresses, at)) for at in changes)
        return _Made(profile, read_map, eras, bands)

    def _read_map(
        self, name: str, profile: Profile, addresses: Mapping[str, RegisterAddress], at_ns: int
    ) -> ReadMap:
        config, tags = self._config, []
        for signal, settings in profile.items():
            try:
                column = settings.column(signal, at_ns, self._zone)
                tags.append(RegisterTag(column, _with_grid(addresses[signal], column.scale, column.offset)))
            except ConfigError as e:
                raise ConfigError(e.message, where=f"profiles.{name}.{signal}") from e
        one = compile_read_map(tags, config.bridge_gaps, config.max_registers, config.max_bits)
        # Devices whose tables only begin elsewhere have images that are alike: they are decoded together.
        key = one.image_bytes, tuple(part.key for part in one.parts)
        return replace(one, parts=self._parts.setdefault(key, one.parts))


def _with_grid(address: RegisterAddress, scale: float, add: float) -> RegisterAddress:
    """The address with the grid of its signal on top of its own."""
    if address.type == STR:
        if (scale, add) != (1.0, 0.0):
            raise ConfigError("a text has no scale, calibration or conversion")
        return address
    scale, add = composed((address.scale, address.add), (scale, add))
    return replace(address, scale=scale, add=add)
