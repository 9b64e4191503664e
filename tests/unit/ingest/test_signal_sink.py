"""An adapter's own groups and slots in, those that are stored out."""

import asyncio
import logging
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from headrace.core.clock import NO_TIME
from headrace.core.dead_bands import DeadBands
from headrace.core.errors import ConfigError, NotFound, PluginError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.quality import Quality
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings, SignalTreatment
from headrace.ingest.signal_rules import SignalRules, TakenSignal
from headrace.ingest.signal_sink import OwnDirectory, SignalSink
from headrace.testing.adapters import RecordingSink

DAY = 86_400 * 10**9
YEAR_2026 = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 10**9
NOW = YEAR_2026 + 100 * DAY
F64 = Layout("f64", (Column("a", unit="V"), Column("b"), Column("c")))


def said(**keys):
    return SignalTreatment.model_validate(keys)


def rules(patterns=None, single=None, table=None, zone=UTC):
    patterns = {pattern: said(**keys) for pattern, keys in (patterns or {}).items()}
    return SignalRules("x", patterns, single, table, zone)


class Clock:
    def __init__(self):
        self.now_ns = NOW

    def __call__(self):
        return self.now_ns


def own(some, plant=None, clock=None):
    return OwnDirectory(plant or SensorDirectory(), some, clock or Clock())


def dense(slots, times, rows, **more):
    return FrameBatch.dense(np.array(slots, np.uint32), np.array(times), np.array(rows, np.float64), **more)


def values(directory, batches):
    return [(r.path, r.ts_ns, r.value) for batch in batches for r in readings(batch, directory.plant)]


# --- rules -------------------------------------------------------------------------------------------


def test_the_most_specific_pattern_counts_and_what_is_said_of_a_signal_itself_more():
    some = rules(
        {"**": {"unit": "V"}, "l/d/*": {"unit": "A", "dead_band": 1.0}},
        {"l/d/a": said(dead_band=2.0, scale=2.0)},
    )
    assert some.find("l/e/x").treatment.unit == "V"
    assert some.find("l/d/x").treatment.unit == "A"
    found = some.find("l/d/a")
    assert (found.treatment.unit, found.treatment.scale, found.treatment.dead_band) == ("A", 2.0, 2.0)
    assert (found.is_named, some.find("l/d/x").is_named) == (True, False)
    assert rules({"l/**": {"unit": "V"}}).find("m/x") == TakenSignal("m/x", None, False)
    assert (bool(some), bool(rules()), bool(rules(table={}))) == (True, False, True)


def test_a_conversion_that_cannot_be_is_told_with_its_key():
    with pytest.raises(ConfigError, match="can't be converted") as e:
        rules({"**/t": {"unit": "degC", "convert_to": "bar"}})
    assert e.value.where == 'adapters.x.treatments."**/t"'


def test_the_source_may_say_the_unit_that_is_converted(caplog):
    some = rules({"**": {"convert_to": "degC", "scale": 2.0}})
    taken = some.find("l/d/t")
    column = some.column(Column("t", unit="K"), "t", "f64", taken).at(NO_TIME)
    assert (column.unit, column.scale, column.offset) == ("degC", 2.0, -273.15)
    for unit, why in (("", "its source tells none"), ("bar", "can't be converted")):
        for _ in range(2):
            path = TakenSignal(f"l/d/{unit}", taken.treatment)
            assert some.column(Column("t", unit=unit), "t", "f64", path).at(NO_TIME) == Column("t", unit=unit)
        assert [why in record.message for record in caplog.records] == [True]
        assert "adapter=x signal=l/d/" in caplog.text
        caplog.clear()


def test_what_holds_states_or_texts_has_no_scale(caplog):
    truth = Column("on", Kind.DISCRETE, labels=("false", "true"))
    some = rules({"**": {"scale": 2.0, "unit": "x", "labels": ["off", "on"]}}, {"l/d/s": said(limits=[0, 1])})
    found = some.column(truth, "on", "u8", some.find("l/d/on"))
    assert found.at(NO_TIME) == Column("on", Kind.DISCRETE, "x", labels=("off", "on"))
    assert found.band is None
    assert not caplog.records, "a pattern means those that it can mean"
    some.column(truth, "s", "u8", some.find("l/d/s"))
    assert "states or texts, which have no limits" in caplog.text
    numbers = rules({"**": {"scale": 2.0, "kind": "counter"}})
    assert numbers.column(truth, "on", "u8", numbers.find("l/d/on")).at(NO_TIME).scale == 2.0
    assert numbers.column(truth, "on", "text", numbers.find("l/d/on")).at(NO_TIME).scale == 1.0


def test_a_calibration_begins_in_plant_time():
    some = rules(
        {"**": {"calibration": [{"from": "2026-01-01", "scale": 3.0}]}}, zone=ZoneInfo("Europe/Madrid")
    )
    ((first, _), (second, column)) = some.column(Column("t"), "t", "f64", some.find("l/d/t")).eras
    assert (first, second, column.scale) == (NO_TIME, YEAR_2026 - 3_600 * 10**9, 3.0)


def test_infinite_limits_are_none():
    some = rules({"**": {"limits": [None, float("inf")]}})
    found = some.column(Column("t", low=0.0, high=1.0), "t", "f64", some.find("l/d/t")).at(NO_TIME)
    assert (found.low, found.high) == (None, None)


# --- groups ------------------------------------------------------------------------------------------


def test_groups_are_stored_as_the_rules_say():
    directory = own(rules({"**/a": {"scale": 0.1, "limits": [0, 10], "kind": "counter"}}))
    slots = directory.define_many(["l/d", "l/e"], F64, "f64")
    again = directory.define_many(["l/d", "l/e", "l/d"], F64, "f64")
    assert again.tolist() == [*slots.tolist(), slots[0]]
    plant = directory.plant
    assert [plant.paths[s] for s in range(plant.n_slots)] == ["l/d", "l/e"]
    assert plant.layouts == [
        Layout("f64", (Column("a", Kind.COUNTER, "V", 0.1, low=0.0, high=10.0), *F64.columns[1:]))
    ]
    assert directory.layout(int(slots[0])) == F64, "the adapter sees what it has defined"
    batch = dense(slots, [NOW, NOW], [[1, 2, 3], [4, 5, 6]])
    (stored,) = directory.stored(batch)
    assert values(directory, [stored])[0] == ("l/d/a", NOW, pytest.approx(0.1))
    assert stored.values is batch.values, "values are not copied"
    assert directory.stored(batch.slice(0, 0))[0].n_frames == 0


def test_a_slot_that_nobody_defined_is_a_defect_of_the_adapter():
    directory = own(rules({"**": {"unit": "V"}}))
    with pytest.raises(PluginError, match="slot 7 of a frame is unknown, 0 are defined"):
        directory.stored(dense([7], [NOW], [[1.0]], origin="x"))


def test_each_frame_goes_to_the_calibration_of_its_time():
    calibration = [
        {"from": "2026-01-01", "scale": 2.0},
        {"from": "2026-02-01", "scale": 4.0},
        {"from": "2026-06-01", "scale": 8.0},
    ]
    plant, clock = SensorDirectory(), Clock()
    some = rules({"**/a": {"calibration": calibration, "dead_band": 1.0}})
    directory = own(some, plant, clock)
    plain = directory.define("l/e", Layout("f64", (Column("z"),)))
    slot = directory.define("l/d", F64)
    assert plant.n_slots == 4, "what has not begun is not defined"
    may = NOW + 40 * DAY
    times = [YEAR_2026 - 1, YEAR_2026, YEAR_2026 + 31 * DAY, NO_TIME, 5, NOW + 5 * DAY, NOW + DAY // 2]
    (stored,) = directory.stored(dense([slot] * 7, times, [[1, 1, 1]] * 7))
    assert [plant.layout(s).columns[0].scale for s in stored.slot.tolist()] == [1, 2, 4, 4, 4, 4, 4]
    assert [plant.dead_bands[s].change[0] for s in stored.slot.tolist()[:3]] == [1.0, 0.5, 0.25]
    assert (np.diff(stored.slot[:3].astype(int)) > 0).all(), "the later one is the newer one"
    clock.now_ns = may + 60 * DAY
    (stored,) = directory.stored(dense([slot] * 2, [may, may + 50 * DAY], [[1, 1, 1]] * 2))
    assert [plant.layout(s).columns[0].scale for s in stored.slot.tolist()] == [4, 8]
    (stored,) = directory.stored(dense([plain], [NOW], [[1.0]]))
    assert plant.paths[int(stored.slot[0])] == "l/e"
    # A restart finds the same slots, and goes on behind them where a calibration was added.
    n = plant.n_slots
    assert own(some, plant, clock).define("l/d", F64) == 0
    assert plant.n_slots == n
    more = [*calibration, {"from": "2026-06-02", "scale": 16.0}]
    own(rules({"**/a": {"calibration": more, "dead_band": 1.0}}), plant, clock).define("l/d", F64)
    assert plant.n_slots == n + 1
    own(rules({"**/a": {"calibration": more[1:], "dead_band": 1.0}}), plant, clock).define("l/d", F64)
    assert plant.n_slots == n + 1 + 4, "another history is told from the beginning"


def test_many_groups_with_calibrations():
    directory = own(rules({"**/a": {"calibration": [{"from": "2026-01-01", "scale": 2.0}]}}))
    slots = directory.define_many([f"l/d{i}" for i in range(100)], F64)
    batch = dense(slots, [NOW] * 50 + [YEAR_2026 - 1] * 50, np.ones((100, 3)))
    found = values(directory, directory.stored(batch))
    assert [v for path, _, v in found if path.endswith("/a")] == [2.0] * 50 + [1.0] * 50


# --- dead bands --------------------------------------------------------------------------------------


def test_dead_bands_of_the_adapter_stay_where_the_rules_say_none():
    directory = own(rules({"**/a": {"dead_band": 1.0, "heartbeat": "1s", "scale": 2.0}}))
    slot, other = directory.define_many(["l/d", "l/e"], F64).tolist()
    directory.set_dead_bands([slot], DeadBands(np.array([7.0, 8.0, -1.0]), np.array([5, 6, 0]), "x"))
    told = directory.plant.dead_bands
    assert (told[0].change.tolist(), told[0].heartbeat_ns.tolist()) == ([0.5, 8.0, -1.0], [10**9, 6, 0])
    assert told[1].change.tolist() == [0.5, -1.0, -1.0]
    directory.set_dead_bands([slot, other], None)
    assert told[0].change.tolist() == [0.5, -1.0, -1.0]
    directory.become(rules({"**/b": {"unit": "V"}}))
    assert told.keys() == {0, 1}, "of the layouts that were"
    directory.set_dead_bands([slot], DeadBands(np.array([7.0, 8.0, -1.0]), np.array([5, 6, 0]), "x"))
    assert directory.plant.dead_bands[2].change.tolist() == [7.0, 8.0, -1.0]
    directory.become(rules({"**/b": {"unit": "A"}}))
    assert directory.plant.dead_bands[4].change.tolist() == [7.0, 8.0, -1.0]


def test_a_band_that_is_taken_back_is_so_at_once():
    directory = own(rules({"**/a": {"dead_band": 1.0}}))
    directory.define("l/d", F64)
    assert 0 in directory.plant.dead_bands
    directory.become(rules({"**/a": {"limits": [None, None]}}))
    assert (directory.plant.n_slots, directory.plant.dead_bands) == (1, {})


def test_the_adapters_bands_hold_for_calibrations_that_begin_later():
    clock = Clock()
    directory = own(
        rules(
            {
                "**/a": {
                    "calibration": [
                        {"from": "2026-01-01", "scale": 2.0},
                        {"from": "2026-06-01", "scale": 4.0},
                    ]
                }
            }
        ),
        clock=clock,
    )
    slot = directory.define("l/d", F64)
    directory.set_dead_bands([slot], DeadBands(np.array([7.0, -1, -1]), np.array([5, 0, 0])))
    assert directory.plant.dead_bands.keys() == {0, 1}
    clock.now_ns += 100 * DAY
    directory.stored(dense([slot], [NOW], [[1, 2, 3]]))
    assert directory.plant.dead_bands.keys() == {0, 1, 2}


# --- tables of tags ----------------------------------------------------------------------------------

TABLE = {
    "l/d/a": TakenSignal("leon/oven/t", SignalSettings(address="x", scale=2.0)),
    "l/d/c": TakenSignal("leon/fan/speed"),
    "l/e/a": TakenSignal("leon/oven/p"),
    "l/e/b": TakenSignal("l/e/b"),
    "l/e/c": TakenSignal("l/e/c"),
    "solo/x": TakenSignal("leon/solo/x"),
}


def test_a_table_says_what_is_taken_and_where_it_goes(caplog):
    caplog.set_level(logging.INFO)
    directory = own(rules({"leon/oven/*": {"limits": [0, 9]}}, table=TABLE))
    d, e = directory.define_many(["l/d", "l/e"], F64, "f64").tolist()
    solo = directory.define("solo/x", Layout("f64", (Column(""),)), "f64")
    gone = directory.define("gone", Layout("f64", (Column("v"),)), "f64")
    plant = directory.plant
    groups = {
        (plant.paths[s], plant.parts[s]): [c.name for c in plant.layout(s).columns]
        for s in range(plant.n_slots)
    }
    assert groups == {
        ("leon/oven", "f64@l/d"): ["t"], ("leon/fan", "f64@l/d"): ["speed"], ("leon/oven", "f64@l/e"): ["p"],
        ("l/e", "f64"): ["b", "c"], ("leon/solo/x", "f64"): [""],
    }  # fmt: skip
    told = len(caplog.records)
    d = directory.define("l/d", Layout("f64", (Column("a", unit="W"), *F64.columns[1:])), "f64")
    assert len(caplog.records) == told, "it is told once"
    assert "1 signals of l/d are not in its table of tags and are left out: b" in caplog.text
    assert "left out: v" in caplog.text
    batch = dense(
        [d, e, d],
        [1 + YEAR_2026, 2 + YEAR_2026, 3 + YEAR_2026],
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        origin="x",
    )
    (stored,) = directory.stored(batch)
    assert sorted(values(directory, [stored])) == [
        ("l/e/b", 2 + YEAR_2026, 5.0), ("l/e/c", 2 + YEAR_2026, 6.0), ("leon/fan/speed", 1 + YEAR_2026, 3.0),
        ("leon/fan/speed", 3 + YEAR_2026, 9.0), ("leon/oven/p", 2 + YEAR_2026, 4.0), ("leon/oven/t", 1 + YEAR_2026, 2.0),
        ("leon/oven/t", 3 + YEAR_2026, 14.0),
    ]  # fmt: skip
    assert (stored.origin, stored.start is not None) == ("x", True)
    (stored,) = directory.stored(dense([d, d], [NOW, NOW + 1], [[1, 2, 3], [7, 8, 9]]))
    assert (stored.start, stored.values.tolist()) == (None, [[1.0], [3.0], [7.0], [9.0]]), (
        "whole frames are a matrix"
    )
    assert directory.stored(dense([gone], [NOW], [[1.0]])) == []
    whole, apart = (
        directory.stored(dense([solo, gone], [NOW, NOW], [[1.0], [2.0]])),
        directory.stored(dense([gone, solo], [NOW, NOW], [[1.0], [2.0]])),
    )
    assert [values(directory, some) for some in (whole, apart)] == [
        [("leon/solo/x", NOW, 1.0)],
        [("leon/solo/x", NOW, 2.0)],
    ]


def test_qualities_and_times_of_single_values_go_with_them():
    directory = own(rules(table=TABLE))
    d = directory.define("l/d", F64, "f64")
    quality = np.array([[0, 0, Quality.ABSENT], [Quality.BAD_DEVICE, 0, 0]], np.uint8)
    (stored,) = directory.stored(dense([d, d], [NOW, NOW + 1], [[1, 2, 3], [4, 5, 6]], quality=quality))
    assert [(r.path, r.value, r.quality) for r in readings(stored, directory.plant)] == [
        ("leon/oven/t", 2.0, 0), ("leon/oven/t", 8.0, Quality.BAD_DEVICE), ("leon/fan/speed", 6.0, 0),
    ]  # fmt: skip
    (stored,) = directory.stored(
        dense([d], [NOW], [[1, 2, 3]], quality=np.full((1, 3), Quality.UNCERTAIN, np.uint8))
    )
    assert stored.quality.tolist() == [[Quality.UNCERTAIN]] * 2
    sparse = FrameBatch.sparse(
        np.array([d, d], np.uint32), np.array([NOW, NOW + 9]), np.array([1.0, 2, 3, 4]), np.array([0, 3, 4]),
        np.array([0, 1, 2, 2], np.uint16), value_ts_ns=np.array([NOW + 1, NOW + 2, NOW + 3, NOW + 9]),
        quality=np.array([0, 0, Quality.UNCERTAIN, 0], np.uint8),
    )  # fmt: skip
    (stored,) = directory.stored(sparse)
    assert [(r.path, r.ts_ns - NOW, r.value, r.quality) for r in readings(stored, directory.plant)] == [
        ("leon/oven/t", 1, 2.0, 0), ("leon/fan/speed", 3, 3.0, Quality.UNCERTAIN), ("leon/fan/speed", 9, 4.0, 0),
    ]  # fmt: skip


def test_waves_are_taken_or_left_out_as_a_whole():
    directory = own(rules(table={"l/w/v": TakenSignal("leon/w/v")}))
    taken = directory.define("l/w", Layout("f64", (Column("v"), Column("u"))))
    gone = directory.define("l/x", Layout("f64", (Column("v"),)))

    def wave(*slots):
        n = len(slots)
        one = np.ones(n, np.int64)
        return FrameBatch.wave(
            np.array(slots, np.uint32),
            np.arange(n) + NOW,
            np.arange(2.0 * n),
            np.arange(n + 1) * 2,
            (one, one),
        )

    (stored,) = directory.stored(wave(gone, taken))
    assert (directory.plant.paths[int(stored.slot[0])], stored.values.tolist()) == ("leon/w", [2.0, 3.0])
    assert directory.stored(wave(gone)) == []


def test_a_table_that_changes_holds_from_the_next_frame_on():
    directory = own(rules(table=TABLE))
    d = directory.define("l/d", F64, "f64")
    directory.become(rules(table={"l/d/b": TakenSignal("leon/oven/b")}))
    assert values(directory, directory.stored(dense([d], [NOW], [[1, 2, 3]]))) == [("leon/oven/b", NOW, 2.0)]
    directory.plant.define("taken", Layout("f64", (Column("x"),)), "other")
    with pytest.raises(ConfigError, match="defined twice"):
        directory.become(rules(table={"l/d/b": TakenSignal("taken/x")}))
    assert values(directory, directory.stored(dense([d], [NOW], [[1, 2, 3]]))) == [("leon/oven/b", NOW, 2.0)]
    directory.become(rules({"**": {"unit": "V"}}))
    assert len(values(directory, directory.stored(dense([d], [NOW], [[1, 2, 3]])))) == 3


def test_a_calibration_of_a_table_begins_while_it_runs():
    clock = Clock()
    calibrated = said(calibration=[{"from": "2026-06-01", "scale": 2.0}])
    directory = own(rules(table={"l/d/a": TakenSignal("leon/oven/a", calibrated)}), clock=clock)
    d = directory.define("l/d", F64, "f64")
    clock.now_ns += 100 * DAY
    batch = dense([d, d], [NOW, clock.now_ns], [[1, 2, 3], [4, 5, 6]])
    assert [v for _, _, v in values(directory, directory.stored(batch))] == [1.0, 8.0]


def test_calibrations_that_wait_are_those_of_the_newest_rules():
    clock = Clock()
    directory = own(rules({"**/a": {"calibration": [{"from": "2026-06-01", "scale": 2.0}]}}), clock=clock)
    d = directory.define("l/d", F64, "f64")
    directory.become(rules({"**/a": {"unit": "W"}}))
    n = directory.plant.n_slots
    clock.now_ns += 100 * DAY
    directory.stored(dense([d], [clock.now_ns], [[1, 2, 3]]))
    assert directory.plant.n_slots == n


# --- what is known from earlier runs -----------------------------------------------------------------


def test_what_was_stored_is_known_as_the_adapter_had_it():
    plant = SensorDirectory()
    patterns = {
        "**/a": {"scale": 0.1, "limits": [0, 1], "convert_to": "mV", "unit": "V"},
        "**/b": {"convert_to": "mV"},
    }
    own(rules(patterns), plant).define("l/d", F64, "f64")
    n = plant.n_slots
    later = own(rules(patterns), plant)
    slot = later.slots_at("l/d", ["i64", "f64"])["f64"]
    assert later.layout(slot).columns == (Column("a", unit="V"), Column("b"), Column("c"))
    assert later.slot("l/d", "f64") == slot
    assert plant.n_slots == n
    with pytest.raises(NotFound):
        later.slot("l/e", "f64")
    assert later.slots_at("l/e", ["f64"]) == {}


def test_what_was_stored_by_a_table_is_known_under_its_own_name():
    plant = SensorDirectory()
    first = own(rules(table=TABLE), plant)
    first.define_many(["l/d", "l/e"], F64, "f64")
    first.define("solo/x", Layout("f64", (Column(""),)), "f64")
    n = plant.n_slots
    later = own(
        rules(
            table={
                **TABLE,
                "l/d/b": TakenSignal("leon/oven/new"),
                "l/e/z": TakenSignal("l/e/z"),
                "l/d/y": TakenSignal("leon/new/y"),
            }
        ),
        plant,
    )
    assert [c.name for c in later.layout(later.slot("l/d", "f64")).columns] == ["a", "c"]
    assert [c.name for c in later.layout(later.slot("l/e", "f64")).columns] == ["a", "b", "c"]
    assert later.layout(later.slot("solo/x", "f64")).columns == (Column(""),)
    assert plant.n_slots == n


# --- the sink ----------------------------------------------------------------------------------------


async def test_a_batch_is_acknowledged_once_when_all_that_is_stored_of_it_is_durable():
    sink = RecordingSink()
    signals = SignalSink(sink, rules(table=TABLE))
    assert (signals.clock, signals.has_credit(1)) == (sink.clock, True)
    e = signals.directory.define("l/e", F64, "f64")
    solo = signals.directory.define("solo/x", Layout("f64", (Column(""),)), "f64")
    acked = []
    mixed = FrameBatch.sparse(
        np.array([e, solo], np.uint32), np.array([NOW, NOW]), np.array([1.0, 2, 3, 4]), np.array([0, 3, 4]),
        np.array([0, 1, 2, 0], np.uint16),
    )  # fmt: skip
    await signals.emit(mixed, lambda: acked.append("mixed"))
    await asyncio.sleep(0)
    assert (len(sink.batches), acked) == (2, ["mixed"])
    gone = signals.directory.define("gone", Layout("f64", (Column("v"),)), "f64")
    await signals.emit(dense([gone], [NOW], [[1.0]]), lambda: acked.append("nothing"))
    await signals.emit(dense([gone], [NOW], [[1.0]]))
    await asyncio.sleep(0)
    assert (acked, len(sink.batches)) == (["mixed", "nothing"], 2)
    await signals.reject(Reject(RejectCode.MALFORMED, "x", "", "no"), lambda: acked.append("reject"))
    await asyncio.sleep(0)
    assert (acked[-1], len(sink.rejects)) == ("reject", 1)
