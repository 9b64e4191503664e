"""Ageing: what becomes of samples over a year, on a clock that a test moves."""

import contextlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.disk import LocalDisk
from headrace.core.errors import Closed
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.sensors import SensorDirectory
from headrace.core.tier_settings import TierSection
from headrace.runtime.soundness import verify_folder
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import CountedFaults, Crashed
from headrace.store.commits import sealed_json
from headrace.store.compactor import Compactor
from headrace.store.decoding import Decoding
from headrace.store.pace import Pace
from headrace.store.ranges import load_ranges
from headrace.store.rollups import FOLDER, STATE_FILE, Rollups
from headrace.store.segment import SegmentFile
from headrace.store.tiers import TierRules
from headrace.store.verify import verify_store
from headrace.store.warm import codec_name
from headrace.testing.stores import StoreRig

NS = 1_000_000_000
MINUTE, HOUR, DAY = 60 * NS, 3_600 * NS, 86_400 * NS
FIRST = 20_010  # the first day of a bucket of 30
EPS = 0.005 * 32.0  # of the furnace's range


class Line:
    """A furnace and a press that run from eight to nine each day; a sample of each a minute."""

    def __init__(self):
        self.directory = SensorDirectory(shard_bits=1)
        floats = (Column("temp", unit="degC"), Column("power"), Column("energy", Kind.COUNTER))
        self.furnace = self.directory.define("leon/line1/furnace", Layout("f64", floats))
        states = (Column("state", Kind.DISCRETE), Column("starts", Kind.COUNTER))
        self.press = self.directory.define("leon/line1/press", Layout("u16", states))

    def rules(self, **sections):
        return TierRules({name: TierSection.model_validate(one) for name, one in sections.items()})

    def times(self, day, n_days=1):
        days = np.arange(day, day + n_days) * DAY + 8 * HOUR
        return (days[:, None] + np.arange(60) * MINUTE).reshape(-1)

    def values(self, ts_ns):
        h = ts_ns / HOUR
        noise = np.sin(h * 12.9898) * 43758.5453
        noise -= np.floor(noise)
        temp = 180.0 + 15 * np.sin(h / 24) + noise
        return np.stack([temp, 30.0 + 5 * noise, np.floor(h * 7)], axis=1)

    def feed(self, rig, day, n_days=1):
        ts_ns = self.times(day, n_days)
        n = len(ts_ns)
        rig.add(
            FrameBatch.dense(
                np.full(n, self.furnace, np.uint32), ts_ns, self.values(ts_ns), None, arrival_ns=int(ts_ns[0])
            )
        )
        codes = np.stack([ts_ns // DAY % 3, ts_ns // HOUR % 60_000], axis=1).astype(np.uint16)
        rig.add(
            FrameBatch.dense(np.full(n, self.press, np.uint32), ts_ns, codes, None, arrival_ns=int(ts_ns[0]))
        )
        rig.flush()


@pytest.fixture
def line():
    return Line()


DEFAULT = {
    "match": "**",
    "after": {"cold": "30d", "rollups": "180d", "delete": "270d"},
    "bound": {"range": 0.005},
}


def start(line, disk=None, **sections):
    rig = StoreRig(
        disk or SimulatedDisk(1), line.directory, rules=line.rules(**(sections or {"default": DEFAULT}))
    )
    rig.policy = rig.compactor._policy
    return rig


def pass_days(rig, line, day, n_days):
    """Days go by: samples come, and the background does its work now and then."""
    for one in range(day, day + n_days, 10):
        line.feed(rig, one, 10)
        rig.clock.set_ns((one + 10) * DAY + 2 * HOUR)
        assert work(rig) == []


def work(rig):
    rollups = Rollups(rig.store, rig.clock, ("site", "line", "device", "signal"))
    problems = rollups.run_once().problems
    return problems + rig.compactor.run_once().problems


def ask(rig, pattern, day, n_days=1, *args):
    return rig.store.query(pattern, day * DAY, (day + n_days) * DAY, *args, tail=rig.tail)


def headers(rig, path=None):
    out = []
    for cold in rig.store.refresh().cold.values():
        for info in cold.files:
            file = SegmentFile(rig.disk, info)
            out += file.table([n for n in file.names if n != "payload"]).to_pylist()
    return [row for row in out if path is None or row["path"].endswith(path)]


def rolled(rig, path):
    """Minutes of a sensor that are in rollups, by day."""
    out = {}
    for name in rig.disk.list(FOLDER):
        if name.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(pa.py_buffer(rig.disk.read(name))))
            n = sum(p.endswith(path) for p in table["path"].to_pylist())
            day = int(np.datetime64(name.split("/")[2], "D").astype(int))
            out[day] = out.get(day, 0) + n
    return {day: n for day, n in out.items() if n}


def restart(rig):
    """The power fails."""
    rig.disk = rig.disk.crash()
    rig.start()


def check_day(rig, line, day):
    """A day's samples are right within the bound, and its aggregates exact."""
    ts_ns = line.times(day)
    exact = line.values(ts_ns)
    found = ask(rig, "**/temp", day)
    assert found.ts_ns.tolist() == ts_ns.tolist()
    assert np.abs(found.columns["value"] - exact[:, 0]).max() <= EPS
    assert ask(rig, "**/energy", day).columns["value"].tolist() == exact[:, 2].tolist()
    assert ask(rig, "**/starts", day).columns["value"].tolist() == (ts_ns // HOUR % 60_000).tolist()


def test_a_year_of_ageing(line):
    rig = start(line)
    for quarter in range(4):
        pass_days(rig, line, FIRST + 90 * quarter, 90)
        if quarter == 1:
            restart(rig)
    n_days = 360
    # 360 days later: the last 30 to 60 days are warm, up to 180 cold, up to 270 rollups only.
    view = rig.store.refresh()
    assert sorted(view.cold) == list(range(FIRST // 30, FIRST // 30 + 11))
    warm_days = {f.t_min_ns // DAY for f in view.segments["warm"]}
    assert min(warm_days) == FIRST + 330
    kept = range(FIRST + 180, FIRST + n_days)
    for day in [*kept[::17], kept[-1]]:
        check_day(rig, line, day)
    assert ask(rig, "**", FIRST, 90).n_rows == 0
    check_rollups(rig, line, FIRST + 90, 90)
    assert sorted(rolled(rig, "temp")) == list(range(FIRST + 90, FIRST + n_days))
    assert rolled(rig, "temp")[FIRST + 100] == 60
    # A month in one window is answered by the windows of its days, which are exact.
    month = ask(rig, "**/temp", FIRST + 240, 30, 30 * DAY, ("mean", "max", "count"))
    exact = line.values(line.times(FIRST + 240, 30))[:, 0]
    assert (month.sources["rollup_windows"], month.sources["warm_headers"]) == (30, 0)
    assert month.columns["count"].tolist() == [len(exact)]
    assert month.columns["max"].tolist() == [exact.max()]
    assert abs(month.columns["mean"][0] - exact.mean()) <= 1e-12 * abs(exact.mean())
    assert verify_store(rig.disk, rig.store).harms == []
    assert 0 < max(row["max_error"] for row in headers(rig, "/temp")) <= EPS
    assert {row["bound"] for row in headers(rig, "/energy")} == {0.0}
    rig.clock.advance(600)
    assert rig.compactor.run_once().n_aged == 0
    left = set(rig.disk.list("segments"))
    assert left == named(rig)


def named(rig):
    """Files with samples or rollups that count."""
    view = rig.store.refresh()
    return {f.name for infos in (*view.segments.values(), *view.rolled.values()) for f in infos}


def check_rollups(rig, line, day, n_days):
    """Of a span only rollups are left: minutes where samples are asked for, and exact windows."""
    samples = ask(rig, "**/temp", day, n_days)
    assert (samples.n_rows, samples.resolution_ns) == (60 * n_days, MINUTE)
    exact = line.values(line.times(day, n_days))[:, 0].reshape(n_days, 60)
    found = ask(rig, "**/temp", day, n_days, DAY, ("mean", "max", "count"))
    assert (found.missing, found.resolution_ns) == ((), 0)
    assert found.columns["count"].tolist() == [60] * n_days
    assert found.columns["max"].tolist() == exact.max(axis=1).tolist()
    assert np.abs(found.columns["mean"] - exact.mean(axis=1)).max() <= 1e-12 * 200
    assert found.sources["warm_rows"] + found.sources["hot_rows"] == 0


def month(line, **sections):
    """A rig on which a bucket is due, and nothing of it done."""
    rig = start(line, **sections)
    line.feed(rig, FIRST, 30)
    rig.clock.set_ns((FIRST + 31) * DAY)
    assert work(rig) == []
    rig.clock.set_ns((FIRST + 61) * DAY)
    return rig


@pytest.mark.parametrize(
    ("point", "nth"), [("segment.write", 1), ("commit.publish", 1), ("disk.replace", 3), ("disk.put", 1), ("disk.put", 2),
                       ("disk.delete", 1), ("disk.delete", 40)],
)  # fmt: skip
def test_a_process_that_ends_while_a_bucket_gets_cold_loses_nothing(line, point, nth):
    rig = month(line, default=DEFAULT)
    rig.compactor._faults = rig.disk.faults = faults = CountedFaults({point: nth})
    with contextlib.suppress(Crashed):
        work(rig)
        rig.clock.advance(400)
        work(rig)
    assert faults.passes[point] == nth
    restart(rig)
    for _ in range(2):
        check_day(rig, line, FIRST + 3)
        assert ask(rig, "**/temp", FIRST, 30).n_rows == 30 * 60
        rig.clock.advance(400)
        assert work(rig) == []
    assert sorted(rig.store.view.cold) == [FIRST // 30]
    assert verify_store(rig.disk, rig.store).is_sound


@pytest.mark.parametrize(("point", "nth"), [("segment.write", 31), ("commit.publish", 1)])
def test_a_process_that_ends_while_some_lose_their_samples_loses_no_window(line, point, nth):
    short = DEFAULT | {"match": "**/power", "after": {"cold": "30d", "rollups": "31d"}}
    rig = month(line, default=DEFAULT | {"after": {"cold": "30d", "rollups": "9y"}}, short=short)
    before = ask(rig, "**/power", FIRST, 30, DAY, ("count", "max", "mean"))
    rig.compactor._faults = rig.disk.faults = faults = CountedFaults({point: nth})
    with contextlib.suppress(Crashed):
        work(rig)
        rig.clock.advance(400)
        work(rig)
    assert faults.passes[point] == nth
    restart(rig)
    for _ in range(2):
        found = ask(rig, "**/power", FIRST, 30, DAY, ("count", "max", "mean"))
        for name in ("count", "max", "mean"):
            assert found.columns[name].tolist() == pytest.approx(before.columns[name].tolist(), rel=1e-14)
        assert ask(rig, "**/temp", FIRST, 30).n_rows == 30 * 60
        rig.clock.advance(400)
        assert work(rig) == []
    rig.clock.advance(400)
    assert work(rig) == []
    assert len(rig.store.refresh().alone) == 30
    assert set(rig.disk.list("segments")) == named(rig)
    assert verify_store(rig.disk, rig.store).is_sound


def test_a_range_is_fixed_once_and_a_glitch_does_not_widen_it(line):
    rig = month(line, default=DEFAULT)
    ts_ns = np.array([(FIRST + 2) * DAY + 20 * HOUR])
    mad = FrameBatch.dense(
        np.array([line.furnace], np.uint32),
        ts_ns,
        np.array([[1e9, 0.0, 0.0]]),
        None,
        arrival_ns=int(ts_ns[0]),
    )
    rig.add(mad)
    rig.flush()
    assert work(rig) == []
    sensor = int(line.directory.find("**/temp").sensor[0])
    span, fixed_ns = load_ranges(rig.disk)[sensor]
    assert 1.0 < span < 40.0
    for row in headers(rig, "/temp"):
        assert row["bound"] in (0.0, pytest.approx(0.005 * span))
    line.feed(rig, FIRST + 30, 30)
    rig.clock.set_ns((FIRST + 91) * DAY)
    work(rig)
    rig.clock.advance(7_200)
    work(rig)
    assert load_ranges(rig.disk)[sensor] == (span, fixed_ns)


def test_a_hold_keeps_what_it_matches_and_nothing_else(line):
    until = (FIRST + 400) * DAY
    date = str(np.datetime64(FIRST + 400, "D"))
    short = DEFAULT | {"after": {"cold": "30d", "delete": "60d"}}
    rig = month(line, default=short, claim={"match": "**/temp", "hold": {"until": date}})
    assert work(rig) == []
    assert {row["bound"] for row in headers(rig, "/temp")} == {0.0}
    assert max(row["bound"] for row in headers(rig, "/power")) > 0.0
    rig.clock.set_ns((FIRST + 100) * DAY)
    assert work(rig) == []
    exact = line.values(line.times(FIRST, 30))[:, 0]
    assert ask(rig, "**/temp", FIRST, 30).columns["value"].tolist() == exact.tolist()
    assert ask(rig, "**/{power,energy,state,starts}", FIRST, 30).n_rows == 0
    assert rolled(rig, "temp")
    assert not rolled(rig, "power")
    rig.clock.set_ns(until)
    assert work(rig) == []
    assert ask(rig, "**", FIRST, 30).n_rows == 0


def test_a_rule_takes_its_sensors_and_leaves_the_others_as_they_are(line):
    rig = month(line, temps=DEFAULT | {"match": "**/temp"})
    before = {row["path"]: row for info in rig.store.view.segments["warm"] for row in rows_of(rig, info)}
    assert work(rig) == []
    now = [row for cold in rig.store.view.cold.values() for info in cold.files for row in rows_of(rig, info)]
    others = {row["path"]: row for row in now if not row["path"].endswith("/temp")}
    assert others == {path: row for path, row in before.items() if not path.endswith("/temp")}
    assert len([row for row in now if row["path"].endswith("/temp")]) == 1
    check_day(rig, line, FIRST + 5)


def rows_of(rig, info):
    return SegmentFile(rig.disk, info).table().to_pylist()


def come_late(rig, line, ts_ns):
    """A mad reading of the furnace, long after its time."""
    values = np.array([[999.0, 0.0, 0.0]])
    slot = np.array([line.furnace], np.uint32)
    rig.add(FrameBatch.dense(slot, np.array([ts_ns]), values, None, arrival_ns=rig.clock.now_ns()))
    rig.flush()


def test_samples_stay_where_no_rollups_stand_for_them(line):
    rule = DEFAULT | {"after": {"cold": "30d", "rollups": "31d", "delete": "270d"}}
    rig = month(line, default=DEFAULT | {"after": {"cold": "30d"}})
    rig.compactor = Compactor(rig.store, rig.clock, policy=rig.policy, rules=line.rules(default=rule))
    (problem,) = rig.compactor.run_once().problems
    assert "keeps samples of 5 sensors, leon/line1/furnace/energy among them: no rollups of 1m" in problem
    check_day(rig, line, FIRST + 5)
    again = rig.compactor.run_once()
    assert (again.n_aged, again.problems) == (0, []), "it is told once, and not looked at again for nothing"
    rig.clock.advance(86_400 * 300)
    assert rig.compactor.run_once().problems == []
    assert ask(rig, "**", FIRST, 30).n_rows == 0, "it is deleted when its time has come"


def test_samples_go_once_rollups_stand_for_them(line):
    rig = month(line, default=DEFAULT | {"after": {"cold": "30d", "rollups": "31d"}})
    assert work(rig) == []
    check_rollups(rig, line, FIRST, 30)
    # What comes late is not in the rollups, and stays beside them.
    come_late(rig, line, FIRST * DAY + 20 * HOUR)
    for n_aged in (0, 1, 0):
        rig.clock.advance(86_400 * 2)
        done = rig.compactor.run_once()
        assert (done.n_aged, done.n_dropped, done.problems) == (n_aged, 0, [])  # and is not looked at again
        day = ask(rig, "**/temp", FIRST, 1, DAY, ("max", "count"))
        assert (day.columns["max"].tolist(), day.columns["count"].tolist()) == ([999.0], [61])
        assert 999.0 in ask(rig, "**/temp", FIRST, 1).columns["value"].tolist()
    assert verify_store(rig.disk, rig.store).harms == []


def test_what_comes_late_to_a_cold_day_is_in_its_windows(line):
    rig = month(line, default=DEFAULT | {"after": {"cold": "30d", "rollups": "1y"}})
    assert work(rig) == []
    exact = line.values(line.times(FIRST))[:, 0]
    assert ask(rig, "**/temp", FIRST, 1, DAY, ("max",)).sources["rollup_windows"] == 1
    come_late(rig, line, int(line.times(FIRST)[5]) + HOUR // 4)
    for _ in range(4):
        for every in (DAY, HOUR):
            day = ask(rig, "**/temp", FIRST, 1, every, ("max", "count", "min"))
            # It is of the time of another, and takes its place.
            assert (day.columns["max"].tolist(), day.columns["count"].tolist()) == ([999.0], [60])
            assert abs(day.columns["min"][0] - exact.min()) <= EPS
        rig.clock.advance(86_400 * 2)
        rig.compactor.run_once()
    assert not any(
        day == FIRST and one.rollups and not one.is_late
        for day, one in rig.store.refresh().cold[FIRST // 30].days.items()
    )
    assert verify_store(rig.disk, rig.store).harms == []


def test_days_across_the_border_of_cold_chunks_are_answered_without_decoding_one(line, monkeypatch):
    rig = month(line, default=DEFAULT | {"after": {"cold": "30d", "rollups": "9y"}, "cold_block": 500})
    assert work(rig) == []
    chunks = headers(rig, "/temp")
    first = [row["t_min"].timestamp() * NS // DAY - FIRST for row in chunks]
    last = [row["t_max"].timestamp() * NS // DAY - FIRST for row in chunks]
    assert (first, last) == ([0, 7, 15, 22], [7, 14, 22, 29])  # two end within a day
    decoded = []
    add = Decoding.add_rows

    def counted(self, found, place):
        add(self, found, place)
        decoded.append(self.n_rows_decoded)

    monkeypatch.setattr(Decoding, "add_rows", counted)

    def n_decoded(day, n_days, every=DAY):
        decoded.clear()
        found = ask(rig, "**/temp", day, n_days, every, ("mean", "max", "count"))
        exact = line.values(line.times(day, n_days))[:, 0].reshape(n_days, 60)
        if every == DAY and max(found.columns["count"]) == 60:
            assert found.columns["max"].tolist() == exact.max(axis=1).tolist()
        assert sum(found.columns["count"]) >= 60 * n_days
        return sum(decoded)

    for span in ((FIRST, 30), (FIRST + 5, 5), (FIRST + 7, 1), (FIRST + 3, 21)):
        assert n_decoded(*span) == n_decoded(*span, every=30 * DAY) == 0
    assert n_decoded(FIRST + 7, 1, HOUR // 2) > 0  # so few samples are decoded sooner than minutes
    add_one(rig, line, (FIRST + 9) * DAY + 20 * HOUR)
    rig.clock.advance(86_400 * 2)
    assert work(rig) == []
    assert n_decoded(FIRST, 9) == n_decoded(FIRST + 10, 20) == 0
    assert n_decoded(FIRST, 30) == 2  # the chunk that has the late day, and what came late


@pytest.mark.parametrize("after", [{"rollups": "31d"}, {"delete": "31d"}])
def test_what_comes_late_counts_once_where_others_have_lost_their_samples(line, after):
    rules = {
        "default": DEFAULT | {"after": {"cold": "30d", "rollups": "9y"}},
        "short": DEFAULT | {"match": "**/power", "after": {"cold": "30d"} | after},
    }
    rig = month(line, **rules)
    assert work(rig) == []
    before = ask(rig, "**/temp", FIRST, 30, DAY, ("max", "min", "mean"))
    add_one(rig, line, (FIRST + 4) * DAY + 20 * HOUR)
    for _ in range(3):
        rig.clock.advance(86_400 * 2)
        rig.compactor.run_once()
        for every, n_windows in ((DAY, 29), (30 * DAY, 29), (HOUR, 0)):
            found = ask(rig, "**/temp", FIRST, 30, every, ("count", "max", "min", "mean"))
            assert (found.columns["count"].sum(), found.resolution_ns) == (1_801, 0)
            # Only the late day, once it is merged, is answered from samples.
            assert found.sources["rollup_windows"] >= n_windows
            if every == DAY:
                others = np.arange(30) != 4
                for name in ("max", "min", "mean"):
                    assert found.columns[name][others].tolist() == before.columns[name][others].tolist()
        samples = ask(rig, "**/temp", FIRST, 30)
        assert (samples.n_rows, samples.resolution_ns) == (1_801, 0)
    (cold,) = rig.store.refresh().cold.values()
    assert [day for day, one in cold.days.items() if one.is_late] == [FIRST + 4]
    assert ask(rig, "**/power", FIRST, 30, 30 * DAY, ("count",)).columns["count"].tolist() == (
        [1_801] if "rollups" in after else []
    )
    assert verify_store(rig.disk, rig.store).is_sound


def add_one(rig, line, ts_ns, value=999.0):
    """A late sample of each sensor of the furnace."""
    late = np.array([line.furnace], np.uint32), np.array([ts_ns]), np.array([[value, value, value]])
    rig.add(FrameBatch.dense(*late, None, arrival_ns=rig.clock.now_ns()))
    rig.flush()


def test_a_day_that_comes_to_samples_that_are_gone_goes_when_its_rollups_are_there(line):
    rig = start(line, default=DEFAULT | {"after": {"cold": "30d", "rollups": "31d"}})
    line.feed(rig, FIRST, 29)
    rig.clock.set_ns((FIRST + 31) * DAY)
    assert work(rig) == []
    rig.clock.set_ns((FIRST + 61) * DAY)
    assert work(rig) == []
    line.feed(rig, FIRST + 29)  # a day that nothing was known of
    for _ in range(3):
        check_rollups(rig, line, FIRST, 29)
        count = ask(rig, "**/temp", FIRST, 30, DAY, ("count",)).columns["count"]
        assert count.tolist() == [60] * 30
        rig.clock.advance(86_400 * 2)
        assert work(rig) == []
    check_rollups(rig, line, FIRST, 30)
    rig.clock.advance(600)
    rig.compactor.run_once()
    assert set(rig.disk.list("segments")) == named(rig)


def test_a_query_that_was_begun_before_goes_on(line):
    rig = month(line, default=DEFAULT)
    view = rig.store.refresh()
    wanted = rig.store.index(rig.store.select("**/temp"))
    span = FIRST * DAY, (FIRST + 30) * DAY
    assert work(rig) == []
    assert rig.store.refresh() is not view
    scan = rig.store.scan(view, wanted, *span)
    assert not scan.is_stale
    assert sum(int(found.rows.n_samples.sum()) for found, _, _ in scan.found) >= 30 * 60
    rig.store.reader.forget({f.name for infos in view.segments.values() for f in infos})
    rig.clock.advance(400)  # the grace time is over
    assert work(rig) == []
    assert rig.store.scan(view, wanted, *span).is_stale
    assert ask(rig, "**/temp", FIRST, 30).n_rows == 30 * 60


def test_a_stop_ends_the_work_where_it_would_rest_and_loses_nothing(line):
    rig = month(line, default=DEFAULT)

    def rest(seconds):
        raise Closed("the engine stops")

    rig.compactor._policy = replace(rig.policy, pace=Pace(1.0, 1.0, rest))
    with pytest.raises(Closed):
        rig.compactor.run_once()
    assert rig.store.refresh().cold == {}
    check_day(rig, line, FIRST + 3)
    rig.start()
    assert work(rig) == []
    assert list(rig.store.refresh().cold) == [FIRST // 30]
    check_day(rig, line, FIRST + 3)


def test_a_damaged_file_is_told_and_its_bucket_stays_as_it_is(line):
    rig = month(line, default=DEFAULT)
    assert work(rig) == []
    files = rig.store.view.cold[FIRST // 30].files
    info = next(f for f in files if any(r["path"].endswith("/temp") for r in rows_of(rig, f)))
    file = SegmentFile(rig.disk, info)
    rig.disk.flip_bit(info.name, int(file.headers(0).offset[0]) + 9)
    rig.store.reader.forget({info.name})
    assert not verify_store(rig.disk, rig.store).is_sound
    rig.rules = line.rules(default=DEFAULT | {"bound": {"range": 0.05}})
    rig.start()
    (problem,) = work(rig)
    assert problem.startswith("30 days from 2024-10-14 stays as it is: ")
    assert rig.store.refresh().cold[FIRST // 30].number == 1


def test_late_data_of_a_cold_bucket_go_into_it(line):
    rig = month(line, default=DEFAULT)
    assert work(rig) == []
    ts_ns = line.times(FIRST + 4)[:5]
    late = np.full((5, 3), 500.0)
    rig.add(
        FrameBatch.dense(np.full(5, line.furnace, np.uint32), ts_ns, late, None, arrival_ns=int(ts_ns[0]))
    )
    rig.flush()
    for _ in range(3):
        found = ask(rig, "**/temp", FIRST + 4).columns["value"]
        assert np.abs(found[:5] - 500.0).max() <= EPS
        assert np.abs(found[5:] - line.values(line.times(FIRST + 4))[5:, 0]).max() <= EPS
        assert ask(rig, "**/temp", FIRST + 4, 1, DAY, ("max",)).columns["max"][0] == pytest.approx(
            500.0, abs=EPS
        )
        rig.clock.advance(90_000)
        assert work(rig) == []
    assert [f.name.split("/")[-1][:6] for f in rig.store.view.cold[FIRST // 30].files].count("000002") == 1
    assert all(not manifest.files for manifest in rig.store.view.manifests.values())
    assert verify_store(rig.disk, rig.store).is_sound


def test_a_bound_that_is_widened_is_kept_against_the_original(line):
    rig = month(line, default=DEFAULT | {"bound": {"absolute": 0.02}})
    assert work(rig) == []
    first = headers(rig, "/temp")[0]
    for eps in (0.05, 0.07, 0.2, 0.5):
        rig.rules = line.rules(default=DEFAULT | {"bound": {"absolute": eps}})
        rig.start()
        assert work(rig) == []
        row = headers(rig, "/temp")[0]
        error = np.abs(
            ask(rig, "**/temp", FIRST, 30).columns["value"] - line.values(line.times(FIRST, 30))[:, 0]
        )
        assert error.max() <= row["max_error"] * (1 + 1e-9) <= eps * (1 + 1e-9)
        assert np.sqrt(np.mean(error**2)) <= row["rmse"] * (1 + 1e-9)
        for name in ("count", "sum", "min", "max", "first", "last", "m2"):
            assert row[name] == first[name]
    assert row["n_bytes"] < first["n_bytes"]
    n = rig.compactor.run_once().n_aged
    assert n == 0  # what was tried is not tried again


@pytest.mark.parametrize("zeros", [False, True])
def test_a_share_of_each_value_is_kept_of_small_ones_too(line, zeros):
    """Over decades, and where a pump stands still: what is off by a share of the smallest value would be lossless then."""
    flow = line.directory.define(
        "leon/line1/flow", Layout("f64", (Column("rate"), Column("level", offset=4.0)))
    )
    rig = start(line, default=DEFAULT | {"bound": {"value": 0.01}})
    ts_ns = line.times(FIRST, 30)
    random = np.random.default_rng(4)
    rate = 10.0 ** (2 * np.sin(np.arange(len(ts_ns)) / 90) + 0.1 * random.normal(size=len(ts_ns)))
    rate *= random.choice([-1.0, 1.0], len(ts_ns))
    rate[::7] *= not zeros
    slot = np.full(len(ts_ns), flow, np.uint32)
    values = np.stack([rate, np.abs(rate) + 1.0], axis=1)
    rig.add(FrameBatch.dense(slot, ts_ns, values, None, arrival_ns=int(ts_ns[0])))
    rig.flush()
    for day in (31, 61, 63):
        rig.clock.set_ns((FIRST + day) * DAY)
        assert work(rig) == []
    rows = headers(rig, "/rate")
    assert {codec_name(row["value_codec"]) for row in rows} == {"relative"}
    error = np.abs(ask(rig, "leon/line1/flow/rate", FIRST, 30).columns["value"] - rate)
    assert (error <= 0.01 * np.abs(rate)).all()
    assert error.max() <= max(row["max_error"] for row in rows) <= 0.01 * np.abs(rate).max()
    assert sum(row["n_bytes"] for row in rows) < 0.3 * 8 * len(rate)
    level = ask(rig, "leon/line1/flow/level", FIRST, 30).columns["value"]
    assert (np.abs(level - (values[:, 1] + 4.0)) <= 0.01 * (values[:, 1] + 4.0)).all()
    assert verify_store(rig.disk, rig.store).is_sound
    rig.rules = line.rules(default=DEFAULT | {"bound": {"absolute": 5.0}})
    rig.start()
    assert work(rig) == []
    error = np.abs(ask(rig, "leon/line1/flow/rate", FIRST, 30).columns["value"] - rate)
    assert (
        0.01 * np.abs(rate).min()
        < error.max()
        <= max(row["max_error"] for row in headers(rig, "/rate"))
        <= 5.0
    )


def test_what_is_said_of_codecs_holds_at_every_step(line):
    said = {"temp": CodecChoice("seasonal"), "power": CodecChoice(forbid=frozenset({"quantise", "seasonal"}))}
    rig = month(line, default=DEFAULT)
    for eps in (0.05, 0.2, 0.5):
        rules = line.rules(default=DEFAULT | {"bound": {"absolute": eps}})
        rig.compactor = Compactor(
            rig.store, rig.clock, policy=rig.policy, rules=rules,
            choice_of=lambda path: said.get(path.rpartition("/")[2], ANY),
        )  # fmt: skip
        assert work(rig) == []
        assert {codec_name(row["value_codec"]) for row in headers(rig, "/temp")} == {"seasonal"}
        assert {codec_name(row["value_codec"]) for row in headers(rig, "/power")}.isdisjoint(
            {"quantise", "seasonal"}
        )
        assert 0 < max(row["max_error"] for row in headers(rig, "/temp")) <= eps * (1 + 1e-9)


def test_a_size_ages_the_oldest_first(line):
    rule = {"match": "**", "after": {"cold": "1y", "delete": "10y"}, "bound": {"range": 0.01}, "size": "1kB"}
    rig = start(line, default=rule)
    for first in (FIRST, FIRST + 30):
        line.feed(rig, first, 30)
    rig.clock.set_ns((FIRST + 61) * DAY)
    for _ in range(4):
        assert work(rig) == []
        rig.clock.advance(3_600)
    assert ask(rig, "**", FIRST, 60).n_rows == 0  # a kilobyte is too little for any day
    big = start(line, default=rule | {"size": "30kB"})
    for first in (FIRST, FIRST + 30):
        line.feed(big, first, 30)
    big.clock.set_ns((FIRST + 61) * DAY)
    for _ in range(4):
        assert work(big) == []
        big.clock.advance(3_600)
    assert sorted(big.store.view.cold)
    assert ask(big, "**/temp", FIRST + 30, 30).n_rows == 30 * 60  # the newest are all there
    assert sum(t.size_bytes for t in big.store.view.tiers) <= 60_000


def test_without_rules_nothing_gets_older_than_warm(line):
    rig = start(line, none={"match": "nothing/**"})
    line.feed(rig, FIRST, 30)
    rig.clock.set_ns((FIRST + 4_000) * DAY)
    assert work(rig) == []
    assert rig.store.view.cold == {}
    rig.rules = TierRules({})
    rig.start()
    assert work(rig) == []
    assert ask(rig, "**/temp", FIRST, 30).n_rows == 30 * 60


def test_registers_with_a_scale_are_measurements_and_others_may_be_anything(line):
    grid = Column("temp", unit="degC", scale=0.1, offset=-40.0)
    plc = line.directory.define(
        "leon/line1/plc", Layout("u16", (grid, Column("word"), Column("made", Kind.COUNTER)))
    )
    rig = start(line)
    ts_ns = line.times(FIRST, 30)
    noise = np.random.default_rng(4).integers(0, 9, len(ts_ns))
    raw = np.stack(
        [2_000 + np.arange(len(ts_ns)) % 400 + noise, noise * 7_000, np.arange(len(ts_ns))], axis=1
    )
    slot = np.full(len(ts_ns), plc, np.uint32)
    rig.add(FrameBatch.dense(slot, ts_ns, raw.astype(np.uint16), None, arrival_ns=int(ts_ns[0])))
    rig.flush()
    for day in (31, 61):
        rig.clock.set_ns((FIRST + day) * DAY)
        assert work(rig) == []
    bounds = {name: headers(rig, f"/{name}")[0]["bound"] for name in ("temp", "word", "made")}
    span = float(np.ptp(raw[:, 0])) * 0.1
    assert 0 < bounds["temp"] <= 0.005 * span
    assert (bounds["word"], bounds["made"]) == (0.0, 0.0)
    error = ask(rig, "leon/line1/plc/temp", FIRST, 30).columns["value"] - (raw[:, 0] * 0.1 - 40.0)
    assert 0 < np.abs(error).max() <= bounds["temp"] * (1 + 1e-9)
    assert np.array_equal(ask(rig, "leon/line1/plc/word", FIRST, 30).columns["value"], raw[:, 1])
    assert verify_store(rig.disk, rig.store).is_sound


@pytest.mark.parametrize("folder", ["segments/cold", "segments/rollups"])
def test_verify_names_damaged_files_of_what_is_old(line, folder):
    rig = month(line, default=DEFAULT | {"after": {"cold": "30d", "rollups": "1y"}})
    assert work(rig) == []
    assert verify_store(rig.disk, rig.store).harms == []
    victim = rig.disk.list(folder)[0]
    sound = bytes(rig.disk.read(victim))
    for at in (len(sound) // 3, len(sound) - 20):
        rig.disk.flip_bit(victim, at)
        rig.store.reader.forget({victim})
        assert victim in {harm.name for harm in verify_store(rig.disk, rig.store).harms}
        rig.disk.replace(victim, sound)
    rig.store.reader.forget({victim})
    assert verify_store(rig.disk, rig.store).harms == []


def test_damaged_rollups_are_named_and_sound_ones_are_not(line, tmp_path):
    rig = start(line, LocalDisk(tmp_path / "store"))
    line.feed(rig, FIRST, 2)
    rig.clock.set_ns((FIRST + 3) * DAY)
    assert work(rig) == []
    parts = [name for name in rig.disk.list(FOLDER) if name.endswith(".parquet")]

    def harmed():
        return [one.name for one in verify_folder(rig.disk).harms if one.name != "journal"]

    assert harmed() == []
    n_told = 0
    for name in parts:
        sound = bytes(rig.disk.read(name))
        table = pq.read_table(pa.BufferReader(sound))
        for at in range(8, len(sound), 397):
            damaged = bytearray(sound)
            damaged[at] ^= 0x10
            rig.disk.replace(name, bytes(damaged))
            if harmed() == [name]:
                n_told += 1
            else:  # where the head of a page says something that nobody reads
                assert pq.read_table(pa.BufferReader(bytes(damaged))).equals(table)
        rig.disk.replace(name, sound)
    assert n_told > 5
    state = bytearray(rig.disk.read(STATE_FILE))
    state[-9] ^= 1
    rig.disk.replace(STATE_FILE, bytes(state))
    assert harmed() == [STATE_FILE]


def test_a_manifest_of_old_days_that_is_none_is_told(line):
    rig = month(line, default=DEFAULT)
    assert work(rig) == []
    (manifest,) = rig.store.refresh().cold.values()
    rig.disk.replace(manifest.name, sealed_json(manifest.to_dict() | {"days": {"x": {}}}))
    (harm,) = [one for one in verify_folder(rig.disk).harms if one.name == manifest.name]
    assert "its content is no manifest" in harm.sentence
