"""The plant file that connects to the demonstration plant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from headrace.core.layouts import Column, Kind
from headrace.sim.device_types import DeviceType
from headrace.sim.devices.modbus import RegisterPlan
from headrace.sim.devices.mqtt import USER, PayloadStyle
from headrace.sim.devices.sparkplug import HOST_ID
from headrace.sim.fleet import Fleet

TIMEZONE = "Europe/Madrid"
STYLES = {"conveyor": PayloadStyle.CSV, "climate": PayloadStyle.NUMBER}


@dataclass(frozen=True, slots=True)
class PlantAddresses:
    """Where the plant's devices are: device path → url of those on Modbus and on OPC UA, and the broker's url.

    `mqtt_version` is the one that the broker speaks, where readers had better know.
    """

    modbus: Mapping[str, str]
    opcua: Mapping[str, str]
    broker: str
    mqtt_version: str = ""


def plant_toml(
    modbus: Fleet, mqtt: Fleet, opcua: Fleet | None, addresses: PlantAddresses, store_url: str
) -> str:
    """The plant file; `opcua` is None where there is no such server."""
    lines = [
        "# The demonstration plant. Written by headrace.sim.plant for one run: ports change.",
        "version = 1",
        "",
        "[plant]",
        f"timezone = {_text(TIMEZONE)}",
        "",
        "[store]",
        f"url = {_text(store_url)}",
    ]
    for kind in modbus.types:
        urls = {path: addresses.modbus[path] for path in modbus.paths(kind.devices())}
        lines += _devices(
            kind, RegisterPlan.of(kind).addresses(), ['protocol = "modbus"', 'interval = "1s"'], urls
        )
    if opcua is not None:
        lines += _opcua(opcua, addresses.opcua)
    broker = [f"url = {_text(addresses.broker)}", f"user = {_text(USER)}"]
    if addresses.mqtt_version:
        broker += [f"version = {_text(addresses.mqtt_version)}"]
    lines += ["", "[adapters.broker]", 'protocol = "mqtt"', *broker]
    lines += ["", "[adapters.broker.topics]", *_topics(mqtt)]
    lines += ["", "[adapters.edge]", 'protocol = "sparkplug"', *broker]
    lines += [f"host_id = {_text(HOST_ID)}"]
    lines += ['ids = { group = "{site}:{area}" }', 'path = "{site}/{area}/{node}/{device}/{metric}"']
    return "\n".join(lines) + "\n"


def _opcua(fleet: Fleet, urls: Mapping[str, str]) -> Iterator[str]:
    from headrace.sim.devices.opcua import variables  # its library is an extra

    for kind in fleet.types:
        some = {path: urls[path] for path in fleet.paths(kind.devices())}
        yield from _devices(kind, variables(kind), ['protocol = "opcua"', 'interval = "500ms"'], some)


def _devices(
    kind: DeviceType,
    addresses: Iterable[tuple[str, Column]],
    settings: Iterable[str],
    urls: Mapping[str, str],
) -> Iterator[str]:
    """The profile of a type and the adapter of its devices; both have its name."""
    name = kind.profile.name
    yield from ("", f"[profiles.{name}]", *(_signal(address, column) for address, column in addresses))
    yield from ("", f"[adapters.{name}]", *settings, f"profile = {_text(name)}")
    yield from ("", f"[adapters.{name}.devices]")
    yield from (f"{_text(path)} = {_text(url)}" for path, url in urls.items())


def _signal(address: str, column: Column) -> str:
    """A profile's line: ``temperature = { address = "holding:0:U16;scale=0.1", unit = "degC", ... }``."""
    fields = [f"address = {_text(address)}"]
    if column.unit:
        fields.append(f"unit = {_text(column.unit)}")
    if column.kind is not Kind.ANALOG:
        fields.append(f"kind = {_text(column.kind.name.lower())}")
    if column.low is not None and column.high is not None:
        fields.append(f"limits = [{column.low:g}, {column.high:g}]")
    if column.labels:
        fields.append(f"labels = {json.dumps(column.labels)}")
    return f"{column.name} = {{ {', '.join(fields)} }}"


def _topics(fleet: Fleet) -> Iterator[str]:
    """The topic rules: one for each payload style, as the first level of the topics tells them apart."""
    site = fleet.paths(np.array([0]))[0].partition("/")[0]
    place = "{area}/{line}/{device}"
    for style in PayloadStyle:
        columns = [
            [c.name for c in kind.parts[0].layout.columns]
            for kind in fleet.types
            if STYLES.get(kind.profile.name, PayloadStyle.JSON) is style
        ]
        topic = f"{style.root}/{place}"
        path = f"{site}/{place}"
        fields = {
            PayloadStyle.JSON: ', values = "fields", time = "ts", time_unit = "ms"',
            PayloadStyle.CSV: ', values = "csv", time = "ts", time_unit = "ms"',
            PayloadStyle.NUMBER: ', values = "number"',
        }[style]
        if style is PayloadStyle.CSV:
            fields += f", columns = {json.dumps(['ts', *columns[0]])}"
        if style is PayloadStyle.NUMBER:
            topic, path = f"{topic}/{{signal}}", f"{path}/{{signal}}"
        else:
            path += "/{key}"
        yield f"{_text(topic)} = {{ path = {_text(path)}{fields} }}"


def _text(value: str) -> str:
    return json.dumps(value)
