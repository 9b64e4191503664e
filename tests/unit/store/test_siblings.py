"""Rows of the cold tier that are predicted from rows of the same device: smaller, and found again alone and after every change."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from headrace.codecs.choice import CodecChoice
from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.core.tier_settings import TierSection
from headrace.sim.disk import SimulatedDisk
from headrace.store import segment as segment_module
from headrace.store import siblings, time_axes
from headrace.store.compactor import Compactor
from headrace.store.decoding import SiblingValues
from headrace.store.kept import kept_of
from headrace.store.query import Store
from headrace.store.segment import SegmentFile
from headrace.store.tiers import TierRules
from headrace.store.verify import verify_store
from headrace.testing.stores import StoreRig

NS = 1_000_000_000
HOUR, DAY = 3_600 * NS, 86_400 * NS
FIRST = 20_010  # the first day of a bucket of 30
BOUND = 0.01
COLD = {"match": "**", "after": {"cold": "30d"}}
NAMES = ("current", "power", "total", "other", "steps")
START, END = FIRST * DAY, (FIRST + 30) * DAY


def drive(n, seed=1):
    """A drive of which the power follows from the current, and the total from both; two sensors have nothing to do with it."""
    rng = np.random.default_rng(seed)
    current = np.round(np.abs(np.cumsum(rng.normal(size=n))) + rng.exponential(size=n) * 3, 1)
    power = np.round(400.0 * current + rng.normal(size=n) * 6, 0)
    total = np.round(power / 100 + current * 2 + rng.normal(size=n) * 0.05, 2)
    other = np.round(np.cumsum(rng.normal(size=n)), 2)
    return np.stack([current, power, total, other, np.arange(n) // 500 * 1.0], axis=1)


class Plant:
    """A rig, a device, and what was measured."""

    def __init__(self, n_days=12, each=60, path="leon/line1/drive", **rules):
        self.directory = SensorDirectory(shard_bits=1)
        self.slot = self.directory.define(path, Layout("f64", tuple(Column(name) for name in NAMES)))
        self.path = path
        days = np.arange(FIRST, FIRST + n_days) * DAY + 8 * HOUR
        self.ts_ns = (days[:, None] + np.arange(each) * 60 * NS).reshape(-1)
        self.values = drive(len(self.ts_ns))
        self.rig = StoreRig(SimulatedDisk(1), self.directory, rules=self.rules(**(rules or {"all": COLD})))
        self.feed(self.ts_ns, self.values)
        self.age(70)

    def rules(self, **sections):
        return TierRules({name: TierSection.model_validate(one) for name, one in sections.items()})

    def feed(self, ts_ns, values):
        n = len(ts_ns)
        self.rig.add(
            FrameBatch.dense(np.full(n, self.slot, np.uint32), ts_ns, values, None, arrival_ns=int(ts_ns[0]))
        )
        self.rig.flush()

    def age(self, day, rules=None, choice_of=None):
        self.rig.clock.set_ns((FIRST + day) * DAY)
        compactor = self.rig.compactor
        if rules is not None or choice_of is not None:
            compactor = Compactor(
                self.rig.store, self.rig.clock, policy=compactor._policy, rules=rules or compactor.rules,
                choice_of=choice_of or compactor._choice_of,
            )  # fmt: skip
        assert compactor.run_once().problems == []

    @property
    def files(self):
        return [info for cold in self.rig.store.refresh().cold.values() for info in cold.files]

    def rows(self):
        return [row for info in self.files for row in SegmentFile(self.rig.disk, info).table().to_pylist()]

    def predicted(self):
        """Names of the sensors that are predicted, each with those it is predicted from."""
        found = {}
        for info in self.files:
            rows = SegmentFile(self.rig.disk, info).table().to_pylist()
            for i, row in enumerate(rows):
                ahead = [row[name] for name in ("sibling", "sibling_2") if row[name]]
                assert bool(ahead) == row["value_codec"].startswith("sibling ")
                if ahead:
                    of = {rows[i + one]["path"].rpartition("/")[2] for one in ahead}
                    found.setdefault(row["path"].rpartition("/")[2], set()).update(of)
        return found

    def column(self, name, store=None):
        store = store or self.rig.store
        return store.query(f"{self.path}/{name}", START, END, tail=self.rig.tail)

    def check(self, bound=0.0, names=NAMES):
        for i, name in enumerate(NAMES):
            if name not in names:
                continue
            answer = self.column(name)
            assert answer.missing == ()
            assert np.array_equal(answer.ts_ns, self.ts_ns)
            want = self.values[:, i]
            if bound:
                reach = bound * np.ptp(want) * (1 + 1e-9)
                assert np.abs(answer.columns["value"] - want).max() <= reach
            else:
                assert answer.columns["value"].tobytes() == want.tobytes()
        assert verify_store(self.rig.disk, self.rig.store).harms == []


def only_plain(monkeypatch):
    monkeypatch.setattr(siblings, "GAIN_MIN", 2.0)


@pytest.mark.parametrize("bound", [0.0, BOUND])
def test_rows_that_follow_from_others_are_smaller_and_each_is_read_alone(bound, monkeypatch):
    section = COLD | ({"bound": {"range": bound}} if bound else {})
    plant = Plant(all=section)
    found = plant.predicted()
    assert found
    assert not set(found) & set(itertools.chain(*found.values()))  # what others follow is plain
    assert not {"other", "steps"} & set(found)
    plant.check(bound)
    only_plain(monkeypatch)
    plain = Plant(all=section)
    assert plain.predicted() == {}
    for name in NAMES:  # the same, bit for bit, whatever it is coded by
        one, other = plant.column(name), plain.column(name)
        assert one.columns["value"].tobytes() == other.columns["value"].tobytes()
    sizes = [sum(row["n_bytes"] for row in one.rows()) for one in (plant, plain)]
    assert sizes[0] < 0.9 * sizes[1]
    for row, other in zip(plant.rows(), plain.rows(), strict=True):  # no header says anything else
        for key in set(row) - {"payload", "n_bytes", "value_codec", "sibling", "sibling_2"}:
            assert row[key] == other[key], key


@pytest.mark.parametrize("bound", [0.0, BOUND])
def test_what_is_kept_of_a_sensor_says_from_whom_it_is_predicted(bound):
    plant = Plant(all=COLD | ({"bound": {"range": bound}} if bound else {}))
    store, found = plant.rig.store, plant.predicted()
    for name in NAMES:
        path, rows = f"{plant.path}/{name}", [row for row in plant.rows() if row["path"].endswith("/" + name)]
        (tier, kept), *more = kept_of(store, store.refresh(), path).items()
        assert (tier, more) == ("cold", [])
        assert kept.n_samples == sum(kept.codecs.values()) == len(plant.ts_ns)
        assert kept.n_bytes == sum(row["n_bytes"] for row in rows)
        assert set(kept.siblings) == {f"{plant.path}/{one}" for one in found.get(name, ())}
        assert kept.max_error == max(row["max_error"] or 0.0 for row in rows) <= bound * np.ptp(plant.values)
    assert kept_of(store, store.refresh(), plant.path + "/nothing") == {}


def test_what_is_damaged_is_passed_over_by_what_is_kept():
    plant = Plant()
    (info,) = plant.files
    plant.rig.disk.replace(info.name, bytes(plant.rig.disk.read(info.name))[:-1] + b"?")
    store = Store.open(plant.rig.disk, plant.directory, plant.rig.clock)
    assert kept_of(store, store.refresh(), f"{plant.path}/other") == {}


def test_aggregates_need_no_payload():
    plant = Plant(all=COLD | {"bound": {"range": BOUND}})
    answer = plant.rig.store.query("leon/**", START, END, None, ("count", "mean", "max"), tail=plant.rig.tail)
    by_path = np.argsort(NAMES)
    assert answer.columns["max"].tolist() == plant.values.max(axis=0)[by_path].tolist()
    assert answer.columns["count"].tolist() == [len(plant.ts_ns)] * len(NAMES)


def test_late_samples_are_merged_with_what_is_predicted():
    plant = Plant()
    assert plant.predicted()
    late = np.arange(FIRST, FIRST + 12) * DAY + 10 * HOUR
    values = drive(12, 2)
    plant.feed(late, values)
    plant.age(80)
    order = np.argsort(np.concatenate([plant.ts_ns, late]), kind="stable")
    plant.ts_ns = np.concatenate([plant.ts_ns, late])[order]
    plant.values = np.concatenate([plant.values, values])[order]
    plant.check()


def test_a_wider_bound_counts_from_what_was_measured():
    plant = Plant(all=COLD | {"bound": {"range": BOUND}})
    before = plant.predicted()
    assert before
    wide = plant.rules(all=COLD | {"bound": {"range": 5 * BOUND}})
    plant.age(90, wide)
    assert all(row["bound"] > 0 for row in plant.rows() if not row["path"].endswith("steps"))
    plant.check(5 * BOUND)


def test_what_is_predicted_stays_when_its_sibling_is_deleted():
    plant = Plant()
    found = plant.predicted()
    gone = set(itertools.chain(*found.values()))
    rules = {"all": COLD} | {
        name: {"match": f"**/{name}", "after": {"cold": "30d", "delete": "60d"}} for name in gone
    }
    plant.age(130, plant.rules(**rules))
    paths = {row["path"].rpartition("/")[2] for row in plant.rows()}
    assert paths == set(NAMES) - gone
    plant.check(names=paths)


def test_a_held_sensor_keeps_all_of_its_digits_while_its_sibling_loses_some():
    lossy = COLD | {"bound": {"range": BOUND}}
    plant = Plant(all=lossy, held={"match": "**/power", "after": {"cold": "30d"}, "hold": True})
    assert plant.column("power").columns["value"].tobytes() == plant.values[:, 1].tobytes()
    plant.check(BOUND, set(NAMES) - {"power"})


def test_a_damaged_sibling_is_told_by_name_and_verify_finds_both():
    plant = Plant(1, 720)  # at even times, which no row has for others
    (info,) = plant.files
    file = SegmentFile(plant.rig.disk, info)
    rows = file.headers(0)
    row = int(np.flatnonzero(rows.references["n_bytes"][:, 0])[0])
    paths = file.table(["path"])["path"].to_pylist()
    offset = int(rows.references["offset"][row, 0])
    leader = int(np.flatnonzero(rows.offset == offset)[0])
    data = bytearray(plant.rig.disk.read(info.name))
    data[offset + 40] ^= 1
    plant.rig.disk.replace(info.name, bytes(data))
    store = Store.open(plant.rig.disk, plant.directory, plant.rig.clock)
    (sentence,) = store.query(paths[row], START, END).missing
    assert (
        f"the values of {paths[row]} are predicted from those of {paths[leader]}, which are damaged"
        in sentence
    )
    assert len(store.query(f"{plant.path}/other", START, END)) == len(plant.ts_ns)
    assert not verify_store(plant.rig.disk, store).is_sound
    with pytest.raises(CorruptionError, match=paths[leader]):
        SiblingValues().read(SegmentFile(plant.rig.disk, info), rows, row)


def test_a_row_that_refers_to_one_that_is_not_there_is_damage():
    plant = Plant()
    (info,) = plant.files
    table = SegmentFile(plant.rig.disk, info).table()
    for wrong in (-9, 9):
        ahead = np.zeros(len(table), np.int32)
        ahead[0] = wrong
        place = table.schema.get_field_index("sibling")
        bad = table.set_column(place, table.schema.field(place), pa.array(ahead))
        with pytest.raises(ValueError, match="not there"):
            segment_module._references(bad, (np.zeros(len(table)),) * 4)


@pytest.mark.parametrize("most", [1, 7])
def test_rows_stay_in_a_row_group_with_what_they_need(monkeypatch, most):
    monkeypatch.setattr(segment_module, "_ROWS_MAX", most)
    monkeypatch.setattr(siblings, "_ROWS_MAX", 6)
    monkeypatch.setattr(time_axes, "_DEVICE_ROWS_MAX", 1)
    plant = Plant(24, all=COLD | {"cold_block": 720})
    (info,) = plant.files
    assert SegmentFile(plant.rig.disk, info).n_groups > 1
    assert plant.predicted()
    plant.check()


def test_nothing_is_predicted_where_something_is_said_about_codecs():
    plant = Plant()
    assert plant.predicted()
    plant.feed(plant.ts_ns[:1] + 7, drive(1))
    for day in (80, 90):
        plant.age(day, choice_of=lambda path: CodecChoice(weight=0.1))
    assert plant.predicted() == {}


def test_sensors_of_other_devices_or_other_times_are_no_siblings():
    table_of = {}
    for path in ("leon/line1/a", "leon/line1/b"):
        plant = Plant(path=path)
        table_of[path] = SegmentFile(plant.rig.disk, plant.files[0]).table()
    own = [
        siblings.own_values(siblings_times_own(table), np.arange(len(table))).take([i])
        for i, table in zip((0, 1), table_of.values(), strict=True)
    ]
    shared = siblings.share_values(pa.concat_tables(own), lambda path: True, lambda: None)
    assert shared["sibling"].to_pylist() == [0, 0]


def siblings_times_own(table):
    from headrace.store.partition_rows import as_warm
    from headrace.store.time_axes import own_times

    return as_warm(own_times(table))
