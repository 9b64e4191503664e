"""What is made of a signal's values is the same whichever adapter they come from.

Each adapter decodes, by its real decoder, four samples of one signal in degrees Fahrenheit. One section of rules goes with
all of them, and the same has to come out of the intake's own steps: units, calibrations by the time of each sample,
limits, dead bands.
"""

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua.ua.ua_binary import struct_to_binary
from tests.unit.adapters.opcua.desk import publish_response

from headrace.adapters.abilities import Captured
from headrace.adapters.modbus.captured import about_piece
from headrace.adapters.modbus.reads import read_request
from headrace.adapters.opcua.captured import mark_of
from headrace.adapters.opcua.tags import TagTable
from headrace.adapters.payloads.register_addresses import Area
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.core.config import parse_plant
from headrace.core.errors import ConfigError
from headrace.core.quality import Quality
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.ingest.normalize import TimePolicy, normalise
from headrace.ingest.thinning import Thinner
from headrace.runtime.adapter_making import make_adapter

DAY_NS = 86_400 * 10**9
T0_NS = 1_764_547_200 * 10**9
"""2025-12-01."""
SENT = [(0, 212.0), (1, 212.5), (2, 500.0), (40, 40.0)]
"""Days after the first of December, °F: the second is within the dead band, the third out of the limits."""
SIGNALS = {
    "**/t": {
        "unit": "degF", "convert_to": "degC", "limits": [-50, 200], "dead_band": 0.5, "heartbeat": "30d",
        "calibration": [{"from": "2026-01-01", "scale": 2.0, "add": -8.0}],
    }
}  # fmt: skip
STORED = [(0, 100.0, Quality.GOOD), (2, 260.0, Quality.BAD_RANGE), (40, 22.2222222, Quality.GOOD)]
LEVELS = ["site", "device", "signal"]


@dataclass
class Case:
    """An adapter, and what it receives: the bytes of samples as they would be captured."""

    section: dict[str, Any]
    pieces: Any
    more: dict[str, Any] = field(default_factory=dict)
    adapter: Any = None


def at(day):
    return T0_NS + day * DAY_NS


def messages(topic, text, **about):
    """A piece for each sample."""
    return [
        Captured(at(day), topic, text.format(ns=at(day), s=at(day) // 10**9, v=v).encode(), about=about)
        for day, v in SENT
    ]


def lines(head, text, **about):
    """One piece with all samples."""
    body = "".join(text.format(ns=at(day), s=at(day) // 10**9, v=v) for day, v in SENT)
    return [Captured(at(41), head[0], (head[1] + body).encode(), about=about)]


def sparkplug(_):
    def metric(day, v, **more):
        return SparkplugValue(v, DataType.DOUBLE, "t", 1, at(day) // 10**6, **more)

    (first, v), *rest = SENT
    bdseq = SparkplugValue(0, DataType.INT64, "bdSeq")
    pieces = [
        ("NBIRTH", "", write_payload(at(0) // 10**6, 0, [bdseq])),
        ("DBIRTH", "/d", write_payload(at(0) // 10**6, 1, [metric(first, v)])),
    ]
    pieces += [
        ("DDATA", "/d", write_payload(at(day) // 10**6, number, [metric(day, v)]))
        for number, (day, v) in enumerate(rest, 2)
    ]
    return [Captured(at(41), f"spBv1.0/s/{kind}/n{device}", data) for kind, device, data in pieces]


def opcua(adapter):
    mark = mark_of(TagTable(adapter._plans, SensorDirectory()))
    return [
        Captured(
            at(day), "h:4840", bytes(struct_to_binary(publish_response(1, v))), about={"variables": mark}
        )
        for day, v in SENT
    ]


def modbus(_):
    request = read_request(Area.HOLDING, 0, 2)
    return [
        Captured(
            at(day),
            "s/d",
            b"\x03\x04" + struct.pack(">f", v),
            about=about_piece("h:502", request, (1, 1), False, ()),
        )
        for day, v in SENT
    ]


TOPICS = {"s/{device}": {"path": "s/{device}/{key}"}}
PROFILE = {"profiles": {"p": {"t": {"address": "ns=2;s=t"}}}}
CASES = {
    "mqtt": Case(
        {"protocol": "mqtt", "url": "mqtt://h", "topics": {"s/{device}": {"path": "s/{device}/{key}", "time": "at"}}},
        messages("s/d", '{{"at": {s}, "t": {v}}}'),
    ),
    "mqtt, single numbers": Case(
        {"protocol": "mqtt", "url": "mqtt://h", "topics": {"s/{device}/{name}": {"path": "s/{device}/{name}", "values": "number"}}},
        messages("s/d/t", "{v}"),
    ),
    "mqtt, line protocol": Case(
        {"protocol": "mqtt", "url": "mqtt://h", "topics": {"any": {"path": "s/{measurement}/{key}", "values": "line"}}},
        messages("any", "d t={v} {ns}"),
    ),
    "mqtt, registers": Case(
        {
            "protocol": "mqtt", "url": "mqtt://h",
            "topics": {"s/{device}": {"path": "s/{device}/{key}", "values": "registers", "registers": {"t": "holding:0:F64"}}},
        },
        [Captured(at(day), "s/d", struct.pack(">d", v)) for day, v in SENT],
    ),
    "kafka": Case(
        {"protocol": "kafka", "brokers": ["h:9092"], "topics": {"s.{device}": {"path": "s/{device}/{key}", "time": "at"}}},
        messages("s.d", '{{"at": {s}, "t": {v}}}', partition="0", offset="0"),
    ),
    "http, line protocol": Case(
        {"protocol": "http", "path": "s/{h}/{field}", "other_tags": "drop"},
        lines(("clients", ""), "m,h=d t={v} {ns}\n"),
    ),
    "exec, line protocol": Case(
        {"protocol": "exec", "command": ["true"], "format": "lines", "path": "s/{h}/{field}", "other_tags": "drop"},
        lines(("command", ""), "m,h=d t={v} {ns}\n"),
    ),
    "files, csv": Case(
        {"protocol": "files", "folder": ".", "files": {"{device}.csv": {"path": "s/{device}/{key}", "time": "at"}}},
        lines(("d.csv", "at,t\n"), "{s},{v}\n"),
    ),
    "sparkplug": Case({"protocol": "sparkplug", "url": "mqtt://h", "path": "{group}/{device}/{metric}"}, sparkplug),
    "opcua": Case(
        {"protocol": "opcua", "profile": "p", "devices": {"s/d": "opc.tcp://h"}, "types": {"t": "f64"}}, opcua, PROFILE
    ),
    "modbus": Case(
        {"protocol": "modbus", "profile": "p", "devices": {"s/d": "modbus+tcp://h"}},
        modbus,
        {"profiles": {"p": {"t": {"address": "holding:0:F32"}}}},
    ),
}  # fmt: skip


def plant(case, signals=SIGNALS, **section):
    data = {"version": 1, "plant": {"levels": LEVELS}, **case.more}
    section = {**case.section, **section} | ({"treatments": signals} if signals else {})
    return parse_plant({**data, "adapters": {"x": section}}, Path())


def taken_in(adapter, case, directory=None):
    """What the intake would store of a case: (day, value, quality) of the signal, in the order of time."""
    directory = directory or SensorDirectory()
    pieces = case.pieces(adapter) if callable(case.pieces) else case.pieces
    batches, rejects = adapter.decode_captured(pieces, directory)
    assert rejects == []
    thinner, found = Thinner(directory), []
    for batch in batches:
        normal = normalise(batch, directory, at(41), TimePolicy())
        thin, _ = thinner.thin(normal.batch)
        found += readings(thin, directory)
    assert {one.path for one in found} <= {"s/d/t"}
    assert all(one.ts_ns % DAY_NS == 0 for one in found)
    return [((one.ts_ns - T0_NS) // DAY_NS, one.value, one.quality) for one in found], directory


def check(found, expected):
    assert [(day, quality) for day, _, quality in found] == [(day, quality) for day, _, quality in expected]
    assert np.allclose([v for _, v, _ in found], [v for _, v, _ in expected], rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_same_comes_of_the_same_rules(name):
    case = CASES[name]
    found, directory = taken_in(make_adapter(plant(case), "x"), case)
    check(found, STORED)
    columns = [directory.layout(slot).columns[0] for slot in range(directory.n_slots)]
    assert {(c.unit, c.low, c.high) for c in columns} == {("degC", -50.0, 200.0)}


@pytest.mark.parametrize("name", CASES)
def test_without_rules_values_are_stored_as_they_come(name):
    case = CASES[name]
    found, _ = taken_in(make_adapter(plant(case, signals=None), "x"), case)
    check(found, [(day, v, Quality.GOOD) for day, v in SENT])


@pytest.mark.parametrize("name", ["mqtt", "opcua", "modbus"])
def test_a_profile_or_a_pattern_may_say_it(name):
    """Profiles count more than patterns, key by key."""
    if name == "mqtt":
        case, signals = CASES[name], SIGNALS
    else:
        profile = CASES[name].more["profiles"]["p"]["t"]
        case = Case(
            CASES[name].section,
            CASES[name].pieces,
            {"profiles": {"p": {"t": {**profile, **SIGNALS["**/t"]}}}},
        )
        signals = None
    found, _ = taken_in(make_adapter(plant(case, signals), "x"), case)
    check(found, STORED)


@pytest.mark.parametrize("name", CASES)
def test_rules_that_come_and_go_hold_for_what_comes_then(name):
    """The directory is that of the run before: what it knows is what was stored, which the adapter must not take for its own."""
    case = CASES[name]
    _, directory = taken_in(make_adapter(plant(case), "x"), case)
    again, _ = taken_in(make_adapter(plant(case), "x"), case, directory)
    check(again, STORED)
    without, _ = taken_in(make_adapter(plant(case, signals=None), "x"), case, directory)
    check(without, [(day, v, Quality.GOOD) for day, v in SENT])
    back, _ = taken_in(make_adapter(plant(case), "x"), case, directory)
    check(back, STORED)


REFUSED = [
    ({"**/t": {"unit": "degF", "convert_to": "bar"}}, 'adapters.x.treatments."../t": .*can\'t be converted'),
    ({"**/t": {"scale": 0}}, 'adapters.x.treatments."../t".scale: .*a finite number that is not 0'),
    ({"**/t": {"heartbeat": "1m"}}, "a heartbeat belongs to a dead_band"),
    ({"**/t": {"limit": [0, 1]}}, "unknown key; did you mean 'limits'"),
    ({"*/d/t": {"add": 1.0}, "s/*/t": {"add": 2.0}}, "neither is more specific; say more in one of them"),
    ({"": {"add": 1.0}}, "an empty pattern matches nothing"),
]


@pytest.mark.parametrize(("signals", "said"), REFUSED)
@pytest.mark.parametrize("name", ["mqtt", "opcua", "modbus", "sparkplug"])
def test_what_is_wrong_is_told_with_adapter_and_pattern(name, signals, said):
    with pytest.raises(ConfigError) as e:
        make_adapter(plant(CASES[name], signals), "x")
    assert re.search(said, str(e.value))


def test_modbus_says_the_same_in_profile_and_section_without_counting_it_twice():
    """Grids of addresses stay what they are; what the section says goes on top."""
    case = CASES["modbus"]
    profile = {
        "profiles": {
            "p": {
                "t": {
                    "address": "holding:0:F32;scale=0.5",
                    "unit": "degF",
                    "dead_band": 2.0,
                    "heartbeat": "30d",
                }
            }
        }
    }
    case = Case(case.section, case.pieces, profile)
    found, directory = taken_in(make_adapter(plant(case, {"**/t": {"scale": 2.0}}), "x"), case)
    check(found, [(0, 212.0, 0), (2, 500.0, 0), (40, 40.0, 0)])
    assert directory.layout(0).columns[0].unit == "degF"
