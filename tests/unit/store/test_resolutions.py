"""Rollups of a day's partition: what is kept, how they change with it, and what is answered once samples are gone."""

import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.sim.disk import SimulatedDisk
from headrace.store import merging, resolutions, rollup_answers
from headrace.store.aggregates import partials_of
from headrace.store.compactor import CompactionPolicy
from headrace.store.manifests import Manifest, write_manifest
from headrace.store.partition_rows import PartitionRows
from headrace.store.resolutions import pack_blocks, unpack_blocks
from headrace.store.rolled_days import complete_series, rolled_series, series_of
from headrace.store.runs import SensorSamples
from headrace.store.verify import verify_store
from headrace.store.window_blocks import Table, decode_windows, encode_blocks
from headrace.testing.stores import StoreRig

NS = 1_000_000_000
MINUTE, HOUR, DAY = 60 * NS, 3_600 * NS, 86_400 * NS
DAY_0 = 20_000
MIDNIGHT = DAY_0 * DAY
ALL = ("count", "sum", "min", "max", "first", "last", "mean")


@pytest.fixture
def directory():
    return SensorDirectory(shard_bits=1)


@pytest.fixture
def rig(directory):
    return StoreRig(SimulatedDisk(1), directory, policy=CompactionPolicy(grace_s=10.0))


@pytest.fixture
def generous(monkeypatch):
    """Blocks of any size are kept, and used for rows of any length."""
    monkeypatch.setattr(resolutions, "SHARE", 1e9)
    monkeypatch.setattr(resolutions, "BLOCK_SAMPLES_MIN", 0)
    monkeypatch.setattr(rollup_answers, "BLOCK_SAMPLES_MIN", 0)


def fill(rig, slot, values, step_ns=NS, start_ns=MIDNIGHT, quality=None):
    """A batch of new frames of one group, all at once."""
    values = np.asarray(values)
    ts_ns = start_ns + np.arange(len(values)) * step_ns
    batch = FrameBatch.dense(
        np.full(len(values), slot, np.uint32), ts_ns, values.reshape(len(values), -1), quality
    )
    rig.journal.append(batch)
    rig.buffers[int(rig.directory.shard[slot])].append(len(rig.journal) - 1, batch)
    rig._high[int(rig.directory.group_id[slot])] = int(ts_ns[-1])
    return batch


def temperature(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.round(60 + 10 * np.sin(np.arange(n) / 900) + rng.normal(0, 0.5, n), 2)


@pytest.fixture
def oven(rig, directory, generous):
    """Three hours of an oven, 1 Hz, and a door; compacted."""
    slot = directory.define("a/oven", Layout("f64", (Column("temp", unit="degC"),)))
    door = directory.define("a/door", Layout("u8", (Column("open", Kind.DISCRETE, labels=("shut", "open")),)))
    fill(rig, slot, temperature(3 * 3_600))
    fill(rig, door, (np.arange(3 * 3_600) // 50 % 2).astype(np.uint8))
    rig.flush()
    rig.compact()
    return slot


def manifest(rig, day=DAY_0):
    return rig.store.refresh().manifests[day]


def drop_samples(rig, day=DAY_0):
    """What the tiers do: of a day only rollups are left."""
    before = manifest(rig, day)
    n, alone = sum(f.n_samples for f in before.files), tuple(f.name for f in before.rollups)
    assert write_manifest(
        rig.disk, replace(before, number=before.number + 1, files=(), n_dropped=n, alone=alone)
    )


def without(rig, *args):
    """The same answered without rollups."""
    rig.store.uses_rollups = False
    try:
        return rig.store.query(*args, tail=rig.tail)
    finally:
        rig.store.uses_rollups = True


def rows_of(rig, day=DAY_0):
    tables = [pq.read_table(io.BytesIO(rig.disk.read(f.name))) for f in manifest(rig, day).rollups]
    return {path: row for t in tables for path, row in zip(t["path"].to_pylist(), t.to_pylist(), strict=True)}


# --- what is kept ----------------------------------------------------------------------------------------


def test_resolutions_are_kept_where_windows_hold_enough(rig, directory, generous):
    slots = {
        name: directory.define(f"a/{name}", Layout("f32", (Column("x"),)))
        for name in ("fast", "slow", "rare")
    }
    fill(rig, slots["fast"], np.arange(4_000, dtype=np.float32), NS // 10)
    fill(rig, slots["slow"], np.arange(20, dtype=np.float32), 5 * MINUTE)
    fill(rig, slots["rare"], np.arange(7, dtype=np.float32), HOUR)
    rig.flush()
    rig.compact()
    found = {path: row["time_codec"] for path, row in rows_of(rig).items()}
    assert found == {"a/fast/x": "3600,60,1", "a/slow/x": "3600"}


@pytest.mark.parametrize("n_at_once", [1, 200, 1 << 16])
def test_sensors_get_their_own_blocks_however_many_are_encoded_at_once(
    rig, directory, generous, monkeypatch, n_at_once
):
    """Those of all types, lanes and resolutions are."""
    monkeypatch.setattr(resolutions, "_WINDOWS", n_at_once)
    kinds = {"u8": 1.0, "i16": 0.5, "f32": 1.0, "f64": 1.0, "u64": 1.0, "i64": 0.1}
    expected = {}
    for i, (dtype, scale) in enumerate(kinds.items()):
        slot = directory.define(f"a/{dtype}", Layout(dtype, (Column("x", scale=scale),)))
        n = 2_400 + 600 * i
        fill(rig, slot, (np.arange(n) // 7 % 90).astype(numpy_dtype(dtype)), NS // 10 * (1 + 9 * (i % 2)))
        expected[f"a/{dtype}/x"] = n
    rig.flush()
    rig.compact()
    found = rows_of(rig)
    for path, n in expected.items():
        row = found[path]
        blocks = unpack_blocks(row["payload"], row["time_codec"])
        assert len(blocks) >= 2, path
        for every_ns, block in blocks.items():
            windows = decode_windows(block, DAY_0, every_ns, numpy_dtype(row["dtype"]))
            assert int(windows.count.sum()) == n
    assert verify_store(rig.disk, rig.store).is_sound


def test_a_block_that_takes_too_much_is_not_kept(rig, directory):
    noise = directory.define("a/noise", Layout("f64", (Column("x"),)))
    clean = directory.define("a/clean", Layout("f64", (Column("x"),)))
    rng = np.random.default_rng(0)
    fill(rig, noise, rng.normal(0, 1, 7_200))
    fill(rig, clean, np.full(7_200, 1.5))
    rig.flush()
    rig.compact()
    found = rows_of(rig)
    chunks = pq.read_table(io.BytesIO(rig.disk.read(manifest(rig).files[0].name)))
    assert found["a/noise/x"]["time_codec"] == "3600,60"
    assert "a/clean/x" not in found
    n_bytes = [
        b
        for p, b in zip(chunks["path"].to_pylist(), chunks["n_bytes"].to_pylist(), strict=True)
        if p == "a/noise/x"
    ]
    assert found["a/noise/x"]["n_bytes"] < 2.1 * resolutions.SHARE * sum(n_bytes)


@pytest.mark.parametrize(
    ("kept_ns", "names"), [((MINUTE, DAY), "60"), ((HOUR,), "3600"), ((DAY,), ""), ((), None)]
)
def test_only_resolutions_that_the_plant_names_are_kept(directory, generous, kept_ns, names):
    policy = CompactionPolicy(grace_s=10.0, resolutions_ns=kept_ns)
    rig = StoreRig(SimulatedDisk(1), directory, policy=policy)
    slot = directory.define("a/oven", Layout("f64", (Column("temp"),)))
    values = temperature(3 * 3_600)
    fill(rig, slot, values)
    rig.flush()
    rig.compact()
    found = {path: row["time_codec"] for path, row in rows_of(rig).items()}
    assert found == ({} if names is None else {"a/oven/temp": names})
    ask = "a/oven/temp", MIDNIGHT, MIDNIGHT + DAY, 2 * HOUR, ALL
    assert rig.store.query(*ask).columns["count"].tolist() == [7_200, 3_600]
    check_same(rig.store.query(*ask), without(rig, *ask))


def test_what_rules_ask_for_is_kept_at_any_cost(rig, directory):
    slot = directory.define("a/rare", Layout("f64", (Column("x"),)))
    fill(rig, slot, np.arange(4.0), 30 * NS)
    rig.flush()
    taken = []

    def encode(*args):
        *day, _, _ = args
        taken.append(resolutions.encode_rollups(*day, np.array([MINUTE]), (HOUR,)))
        return resolutions.encode_rollups(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "encode_rollups", encode)
        rig.compact()
    assert manifest(rig).rollups == ()
    assert taken[0]["time_codec"].to_pylist() == ["3600,60"]


def test_a_short_day_is_its_header(rig, directory):
    slot = directory.define("a/b", Layout("f64", (Column("x"),)))
    fill(rig, slot, np.random.default_rng(0).normal(0, 1, 4_000))
    fill(rig, slot, np.random.default_rng(0).normal(0, 1, 4_100), start_ns=MIDNIGHT + DAY)
    rig.flush()
    rig.compact()
    assert [rows_of(rig, day)["a/b/x"]["time_codec"] for day in (DAY_0, DAY_0 + 1)] == ["", "3600,60"]


def test_texts_and_sums_that_two_floats_can_not_hold_have_no_rollups(rig, directory):
    odd = directory.define("a/odd", Layout("f64", (Column("x"),)))
    fill(rig, odd, np.tile([1e300, 1.0, 1e-300, 2.0], 10))
    word = directory.define("a/word", Layout("u8", (Column("w", Kind.DISCRETE),)))
    one = np.arange(20)
    words = FrameBatch.sparse(
        np.full(20, word, np.uint32), MIDNIGHT + one * NS, (one % 2).astype(np.uint8), np.arange(21),
        np.zeros(20, np.uint16), dictionary=("drill", "mill"),
    )  # fmt: skip
    rig.add(words)
    rig.flush()
    rig.compact()
    assert manifest(rig).rollups == ()
    assert rig.store.query("**", MIDNIGHT, MIDNIGHT + DAY, None, ("count",)).columns["count"].tolist() == [
        40,
        20,
    ]


def test_a_header_is_the_day(rig, oven):
    row = rows_of(rig)["a/oven/temp"]
    values = temperature(3 * 3_600)
    assert (row["count"], row["min"], row["max"]) == (len(values), values.min(), values.max())
    assert (row["first"], row["last"], row["n_samples"]) == (values[0], values[-1], len(values))


def test_a_day_that_lasts_has_no_rollups_yet(rig, directory):
    slot = directory.define("a/b", Layout("u16", (Column("x"),)))
    noise = np.random.default_rng(0).integers(0, 60_000, 1_000).astype(np.uint16)
    fill(rig, slot, noise, start_ns=rig.clock.now_ns() // DAY * DAY)
    rig.flush()
    rig.compact()
    day = rig.clock.now_ns() // DAY
    assert manifest(rig, day).rollups == ()
    rig.clock.advance(3 * 86_400)
    rig.compact()
    assert len(manifest(rig, day).rollups) == 1


# --- they change with the partition ----------------------------------------------------------------------


def test_what_comes_late_is_beside_until_the_day_is_merged(rig, oven):
    before = manifest(rig)
    fill(rig, oven, [99.0], start_ns=MIDNIGHT + 90 * MINUTE + NS // 2)
    rig.flush()
    rig.compact()
    after = manifest(rig)
    assert after.rollups == before.rollups
    assert (
        [f.name for f in after.files if not after.is_rolled(f)]
        == list(after.beside)
        == [after.files[-1].name]
    )
    ask = "a/oven/temp", MIDNIGHT, MIDNIGHT + DAY, HOUR, ALL
    found = rig.store.query(*ask)
    assert found.columns["max"].tolist()[1] == 99.0
    assert found.sources["rollup_windows"] > 2  # the hours around, and minutes of this one
    assert [found.columns[n].tobytes() for n in ALL] == [without(rig, *ask).columns[n].tobytes() for n in ALL]
    assert Manifest.from_dict(after.to_dict()) == after
    fill(rig, oven, temperature(3_000, 1), start_ns=MIDNIGHT + 4 * HOUR)
    rig.flush()
    rig.compact()
    assert manifest(rig).beside == ()
    assert manifest(rig).rollups != before.rollups
    assert rows_of(rig)["a/oven/temp"]["count"] == 3 * 3_600 + 1 + 3_000
    rig.clock.advance(20)
    rig.compact()
    assert rig.disk.list("segments/rollups") == [f.name for f in manifest(rig).rollups]


def test_a_manifest_of_an_earlier_release_has_none():
    data = Manifest(5, 1).to_dict()
    assert set(data) == {
        "version",
        "day",
        "number",
        "published_ns",
        "files",
        "consumed",
        "left_out",
        "is_whole",
    }
    assert Manifest.from_dict(data).rollups == ()


def test_rollups_are_part_of_a_store_that_is_verified(rig, oven):
    name = manifest(rig).rollups[0].name
    assert verify_store(rig.disk, rig.store).is_sound
    assert [tier.name for tier in rig.store.status().tiers] == ["hot", "warm", "rollups"]
    rig.disk.flip_bit(name, rig.disk.size(name) // 2, 3)
    assert {harm.name for harm in verify_store(rig.disk, rig.store).harms} == {name}


@pytest.mark.parametrize("harm", ["delete", "empty", 0.1, 0.3, 0.5, 0.7, 0.99])
def test_damaged_rollups_cost_time_only(rig, oven, harm):
    name = manifest(rig).rollups[0].name
    if harm == "delete":
        rig.disk.delete(name)
    elif harm == "empty":
        rig.disk.replace(name, b"")
    else:
        rig.disk.flip_bit(name, int(harm * rig.disk.size(name)), 1)
    rig.start()
    for every_ns in (HOUR, DAY):
        ask = "a/**", MIDNIGHT, MIDNIGHT + DAY, every_ns, ALL
        found = rig.store.query(*ask)
        assert found.missing == ()
        # What was not harmed is an exact sum; that of samples is rounded as it goes.
        assert found.columns["sum"].tolist() == pytest.approx(
            without(rig, *ask).columns["sum"].tolist(), rel=1e-15
        )


# --- the coarsest that answers ---------------------------------------------------------------------------


def test_windows_are_as_coarse_as_can_be(rig, oven):
    def n_windows(start_ns, end_ns, every_ns, agg=("mean",)):
        return rig.store.query("a/oven/temp", start_ns, end_ns, every_ns, agg).sources.get(
            "rollup_windows", 0
        )

    assert n_windows(MIDNIGHT, MIDNIGHT + DAY, None) == 1
    assert n_windows(MIDNIGHT, MIDNIGHT + DAY, HOUR) == 3
    assert n_windows(MIDNIGHT, MIDNIGHT + DAY, 30 * MINUTE) == 180
    assert n_windows(MIDNIGHT + 30 * MINUTE, MIDNIGHT + DAY, None) == 30 + 2
    assert n_windows(MIDNIGHT + 1, MIDNIGHT + 2 * HOUR, HOUR) == 59 + 1
    assert n_windows(MIDNIGHT, MIDNIGHT + DAY, 90 * NS) == 0
    assert n_windows(MIDNIGHT, MIDNIGHT + DAY, HOUR, ("var",)) == 0
    assert n_windows(MIDNIGHT, MIDNIGHT + DAY, HOUR, ("twa", "mean")) == 0


def test_no_file_of_samples_is_opened_for_whole_days(rig, oven, monkeypatch):
    opened = []
    find = rig.store.reader.open
    monkeypatch.setattr(rig.store.reader, "open", lambda info: opened.append(info.name) or find(info))
    rig.store.query("a/oven/temp", MIDNIGHT, MIDNIGHT + DAY, HOUR, ALL)
    assert {name.split("/")[1] for name in opened} == {"rollups"}


def test_few_samples_are_decoded_rather_than_windows(rig, oven, monkeypatch):
    monkeypatch.setattr(rollup_answers, "BLOCK_SAMPLES_MIN", 1_000_000)
    assert rig.store.query("a/oven/temp", MIDNIGHT, MIDNIGHT + DAY, HOUR, ALL).sources["rollup_windows"] == 0


def test_64_bit_integers_keep_theirs(rig, directory, generous):
    slot = directory.define("a/meter", Layout("u64", (Column("n", Kind.COUNTER),)))
    big = np.uint64(2**63) + np.arange(7_200, dtype=np.uint64)
    fill(rig, slot, big)
    rig.flush()
    rig.compact()
    found = rig.store.query("a/meter/n", MIDNIGHT, MIDNIGHT + DAY, DAY, ("first", "max", "count"))
    assert found.sources["rollup_windows"] == 1
    assert (found.columns["first"].dtype, found.columns["first"][0]) == (np.uint64, 2**63)
    assert found.columns["max"].tolist() == [2**63 + 7_199]


# --- samples are gone ------------------------------------------------------------------------------------


def check_same(now, was):
    """Bit for bit, but for sums of floats: those of chunks' headers are rounded once a chunk."""
    for name in ALL:
        if name in ("sum", "mean"):
            assert np.allclose(now.columns[name], was.columns[name], rtol=1e-14, atol=0.0, equal_nan=True)
        else:
            assert now.columns[name].tobytes() == was.columns[name].tobytes()


def test_windows_are_answered_when_samples_are_gone(rig, oven):
    asks = [("a/**", MIDNIGHT, MIDNIGHT + DAY, every_ns, ALL) for every_ns in (None, DAY, HOUR, 5 * MINUTE)]
    before = [without(rig, *ask) for ask in asks]
    var = without(rig, "a/oven/temp", MIDNIGHT, MIDNIGHT + DAY, HOUR, ("var",)).columns["var"]
    drop_samples(rig)
    for ask, was in zip(asks, before, strict=True):
        now = rig.store.query(*ask)
        assert (now.missing, now.resolution_ns, now.notes) == ((), 0, ())
        assert now.ts_ns.tolist() == was.ts_ns.tolist()
        check_same(now, was)
        check_same(without(rig, *ask), was)
    now = rig.store.query("a/oven/temp", MIDNIGHT, MIDNIGHT + DAY, HOUR, ("var",))
    assert np.allclose(now.columns["var"], var, rtol=2.0**-11)


def test_what_is_finer_gets_what_there_is_and_is_told(rig, oven):
    minutes = without(rig, "a/oven/temp", MIDNIGHT, MIDNIGHT + HOUR, MINUTE, ALL)
    drop_samples(rig)
    raw = rig.store.query("a/oven/temp", MIDNIGHT, MIDNIGHT + HOUR)
    assert raw.resolution_ns == MINUTE
    assert "a/oven/temp" in raw.notes[0]
    assert "1m" in raw.notes[0]
    assert raw.ts_ns.tolist() == minutes.ts_ns.tolist()
    assert raw.columns["value"].tolist() == minutes.columns["mean"].tolist()
    assert set(raw.columns["quality"].tolist()) == {Quality.GOOD}
    fine = rig.store.query("a/oven/temp", MIDNIGHT, MIDNIGHT + HOUR, 10 * NS, ALL)
    assert (fine.resolution_ns, fine.ts_ns.tolist()) == (MINUTE, minutes.ts_ns.tolist())
    assert fine.columns["count"].tolist() == [60] * 60
    states = rig.store.query("a/door/open", MIDNIGHT, MIDNIGHT + 5 * MINUTE)
    assert states.columns["value"].tolist() == [1, 0, 1, 0, 1]  # the last of each minute
    odd = rig.store.query("a/oven/temp", MIDNIGHT + 90 * NS, MIDNIGHT + 150 * NS)
    assert odd.ts_ns.tolist() == [MIDNIGHT + 90 * NS, MIDNIGHT + 120 * NS]
    assert np.isnan(
        rig.store.query("a/oven/temp", MIDNIGHT, MIDNIGHT + DAY, HOUR, ("twa",)).columns["twa"]
    ).all()


def test_what_comes_late_to_samples_that_are_gone_is_there(rig, oven):
    drop_samples(rig)
    at = MIDNIGHT + 90 * MINUTE + NS // 2
    fill(rig, oven, [999.0], start_ns=at)
    for step in ("unflushed", "flushed", "compacted"):
        if step == "flushed":
            rig.flush()
        elif step == "compacted":
            rig.compact()
            assert manifest(rig).alone
        found = rig.store.query("a/oven/temp", MIDNIGHT, MIDNIGHT + DAY, HOUR, ALL, tail=rig.tail)
        assert found.columns["count"].tolist() == [3_600, 3_601, 3_600]
        assert found.columns["max"][1] == 999.0
        assert found.resolution_ns == MINUTE  # whether it is a version of a sample that is gone, nobody knows
        raw = rig.store.query("a/oven/temp", at - 3 * MINUTE, at + MINUTE, tail=rig.tail)
        assert (np.diff(raw.ts_ns) > 0).all()
        assert 999.0 in raw.columns["value"].tolist()


def test_days_with_samples_stay_exact_beside_days_without(rig, oven):
    fill(rig, oven, temperature(7_200, 2), start_ns=MIDNIGHT + DAY)
    rig.flush()
    rig.compact()
    drop_samples(rig)
    raw = rig.store.query("a/oven/temp", MIDNIGHT, MIDNIGHT + 2 * DAY)
    assert (raw.n_rows, raw.resolution_ns) == (180 + 7_200, MINUTE)
    assert rig.store.query("a/oven/temp", MIDNIGHT + DAY, MIDNIGHT + 2 * DAY).resolution_ns == 0


# --- before they are dropped -----------------------------------------------------------------------------


def test_a_series_says_whether_its_samples_could_go(rig, oven, directory):
    def complete(finest_ns=MINUTE):
        view = rig.store.refresh()
        rolled = rolled_series(rig.store.reader, view.rolled.get(DAY_0, ()))
        rows = PartitionRows.load(rig.store, view.manifests[DAY_0].files)
        mine = np.array([path == "a/oven/temp" for path in rows.paths])[rows.path]
        series = series_of(rows.group, rows.layout, rows.column)
        return set(complete_series(rolled, series, rows.n_usable, [finest_ns] * len(rows))[mine].tolist())

    assert complete() == {True}
    assert complete(NS) == {False}
    (file,) = rig.store.view.rolled[DAY_0]
    assert {one.finest_ns for one in rolled_series(rig.store.reader, [file]).values()} == {MINUTE}
    fill(rig, oven, [1.0], start_ns=MIDNIGHT + 5 * HOUR)
    rig.flush()
    rig.compact()
    assert complete() == {False}, "what came late is in no rollup"
    fill(rig, oven, temperature(3_000, 1), start_ns=MIDNIGHT + 6 * HOUR)
    rig.flush()
    rig.compact()
    assert complete() == {True}, "all of it was merged"


# --- bytes -----------------------------------------------------------------------------------------------


def test_damaged_blocks_are_told():
    rng = np.random.default_rng(4)
    ts_ns = MIDNIGHT + np.arange(600) * NS
    one = SensorSamples(
        np.zeros(1, np.int64), np.array([0, 600]), ts_ns, rng.normal(0, 1, 600), np.zeros(600, np.uint8)
    )
    windows = partials_of(one, MINUTE)
    spans = np.array([0]), np.array([len(windows)])
    (block,) = encode_blocks(Table(windows, spans, MINUTE, DAY_0, np.dtype("f8")))
    payload = pack_blocks([block])
    assert unpack_blocks(payload, "60") == {MINUTE: block}
    with pytest.raises(CorruptionError, match="checksum"):
        unpack_blocks(payload[:-1], "60")
    with pytest.raises(CorruptionError, match="newer release"):
        unpack_blocks(payload, "7")
    for _ in range(400):
        bad = bytearray(block)
        for at in rng.integers(0, len(bad), rng.integers(1, 4)).tolist():
            bad[at] = rng.integers(256)
        cut = bytes(bad[: rng.integers(1, len(bad) + 1)]) if rng.random() < 0.3 else bytes(bad)
        try:
            found = decode_windows(cut, DAY_0, MINUTE, np.dtype("f8"))
        except CorruptionError:
            continue
        assert len(found) <= 1_440
