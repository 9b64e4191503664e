"""``headrace import``, ``export`` and ``store`` over real stores."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import open_store
from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.core.clock import NS, VirtualClock
from headrace.core.config import load_plant
from headrace.core.disk import LocalDisk
from headrace.runtime.assemble import check_plant
from headrace.store.compactor import CompactionPolicy, Compactor
from headrace.store.directories import load_directory
from headrace.store.query import Store
from headrace.store.segment import open_segment, write_segment
from headrace.store.verify import Verification, verify_segment_rows, verify_store
from headrace.testing.tables import T0, import_table, long_table

HOUR = 3_600
DAY = {"from_": "2026-03-02 00:00", "to": "2026-03-03 00:00"}
SPAN = ("--from", "2026-03-02 08:00", "--until", "2026-03-02 10:00")
WIDE = """timestamp,T in,outlet,state
2026-03-02T08:00:00Z,180.5,100,on
2026-03-02T08:00:01Z,181.5,,off
2026-03-02T08:00:02Z,182.5,102,off
"""
PLANT = """version = 1
[plant]
timezone = "Europe/Madrid"
[pipelines.minutes]
read = "**/temperature"
steps = [{ op = "window", every = "1m", agg = ["count"] }]
write = "{parent}/{signal}_{agg}_1m"
"""

METERED = """version = 1
[profiles.oven]
temperature = { address = "holding:0:U16;scale=0.1;add=-50", unit = "degC", limits = [0, 400] }
pressure = { address = "holding:1:U16;scale=0.01", unit = "bar" }
speed = { address = "holding:2:U16" }
energy = { address = "holding:4:U32;scale=0.001", unit = "kWh" }
torque = { address = "holding:6:F32;scale=0.1" }
[adapters.ovens]
protocol = "modbus"
profile = "oven"
devices = { "leon/paint/line1/oven1" = "modbus+tcp://127.0.0.1:1" }
"""


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(capsys, *arguments):
    code = run_command([str(a) for a in arguments])
    done = capsys.readouterr()
    return code, done.out, done.err


def imported(capsys, *arguments):
    code, out, err = command(capsys, "import", *arguments, "--yes", "--json")
    assert code in (Exit.DONE, Exit.FAILED), err
    return json.loads(out)


# --- import --------------------------------------------------------------------------------------------------


def test_a_wide_file_becomes_the_sensors_of_a_device(cwd, capsys):
    (cwd / "oven.csv").write_text(WIDE)
    mapping = [
        "--time",
        "timestamp",
        "--path",
        "leon/paint/line1/oven1/{key}",
        "--rename",
        "T in=inlet",
        "--unit",
        "inlet=degC",
    ]
    code, out, _ = command(capsys, "import", "oven.csv", "-t", "store", *mapping, "--dry-run")
    assert code == Exit.DONE
    assert "8 samples of 3 sensors would be taken" in out
    assert not (cwd / "store").exists()
    found = imported(capsys, "oven.csv", "-t", "store", *mapping)
    assert found == {
        "files": 1,
        "rows": 3,
        "samples": 8,
        "rejected": {},
        "stored": 8,
        "duplicates": 0,
        "derived": 0,
    }
    again = imported(capsys, "oven.csv", "-t", "store", *mapping)
    assert (again["stored"], again["duplicates"]) == (0, 8)
    result = open_store(cwd / "store").query("**", **DAY)
    assert result.paths.tolist() == [f"leon/paint/line1/oven1/{n}" for n in ("inlet", "outlet", "state")]
    assert result.units.tolist() == ["degC", "", ""]
    assert result.columns["value"][:3].tolist() == [180.5, 181.5, 182.5]
    assert result.to_pandas(labels=True)["text"].dropna().tolist() == ["on", "off", "off"]


def test_a_long_file_with_names_of_its_own_and_rows_that_can_not_be(cwd, capsys):
    rows = [
        "Tag,Date,PV",
        "leon/a/l/o/t,2026-03-02T08:00:00Z,1",
        "bad//path,2026-03-02T08:00:00Z,2",
        "leon/a/l/o/t,no time,3",
    ]
    (cwd / "old.csv").write_text("\n".join(rows) + "\n")
    mapping = ["--rename", "Tag=path", "--rename", "Date=ts", "--rename", "PV=value"]
    code, out, err = command(capsys, "import", "old.csv", "-t", "store", *mapping)
    assert code == Exit.DONE
    assert "1 samples from 1 files: 1 stored" in out
    assert "refused: 1 samples, bad-path" in err
    assert "refused: 1 samples, bad-time" in err
    assert "rows without a time" in err


def test_the_pipelines_of_the_plant_run_over_what_is_imported(cwd, capsys):
    (cwd / "plant.toml").write_text(PLANT)
    # Plant time: 09:00 in Madrid is 08:00 UTC.
    rows = [
        "path,ts,value",
        *(f"leon/a/l/o/temperature,2026-03-02 09:{s // 60:02d}:{s % 60:02d},{s}" for s in range(180)),
    ]
    (cwd / "day.csv").write_text("\n".join(rows) + "\n")
    assert imported(capsys, "day.csv")["stored"] == 180
    result = open_store(cwd / "plant.toml").query(
        "**/temperature_count_1m", from_="2026-03-02 09:00", to="2026-03-02 10:00"
    )
    assert result.columns["value"].tolist()[:2] == [60, 60]
    assert result.ts_ns[0] == T0
    # Without them, their open windows would be lost.
    code, _, err = command(capsys, "import", "day.csv", "-t", "store")
    assert code == Exit.CONFIG
    assert "name its plant file with -t" in err


def test_a_store_in_use_and_files_that_are_none(cwd, capsys):
    (cwd / "oven.csv").write_text(WIDE)
    (cwd / "broken.parquet").write_bytes(b"PAR1 no parquet")
    disk = LocalDisk(cwd / "store")
    disk.lock()
    where = ["-t", "store", "--time", "timestamp", "--path", "leon/a/l/o/{key}"]
    code, _, err = command(capsys, "import", "oven.csv", *where, "--yes")
    assert code == Exit.FAILED
    assert "is in use by process" in err
    disk.unlock()
    assert imported(capsys, "broken.parquet", *where)["rejected"] == {"malformed": 1}
    for arguments, said in (
        (["nothing.csv"], "no .csv or .parquet file nothing.csv"),
        (["oven.csv"], "no column 'ts'; --time names one of timestamp"),
        (["oven.csv", "--time", "timestamp"], "say of which device with --path"),
        (["oven.csv", "--path", "leon/{key}/x"], "must end in a level {key}"),
        (["oven.csv", "--rename", "x"], "--rename 'x' is not written A=B"),
        (
            ["oven.csv", "--time", "timestamp", "--rename", "outlet=path"],
            "no column 'value'; --value names one of",
        ),
    ):
        code, _, err = command(capsys, "import", *arguments, "-t", "store", "--yes")
        assert code in (Exit.CONFIG, Exit.FAILED)
        assert said in err


def metered_plant(folder):
    folder.mkdir()
    (folder / "plant.toml").write_text(METERED)
    return folder / "plant.toml"


def metered_history(file, n=3_600):
    """All steps of the grids: as other programs write the values, in any last bit."""
    at = np.arange(n)
    times = pa.array(T0 + at * NS, pa.timestamp("ns", "UTC"))
    columns = {
        "temperature": (500 + at) * 0.1 - 50, "pressure": at / 100, "speed": at.astype(float),
        "energy": at * 123_457 / 1_000, "torque": at * 0.25,
    }  # fmt: skip
    pq.write_table(pa.table({"ts": times, **columns}), file)
    return columns


def test_history_goes_onto_the_grids_of_the_plants_registers_and_round(cwd, capsys):
    one, other = metered_plant(cwd / "one"), metered_plant(cwd / "other")
    columns = metered_history(cwd / "history.parquet")
    mapping = ["--path", "leon/paint/line1/oven1/{key}"]
    code, out, _ = command(capsys, "import", "history.parquet", "-t", one, *mapping, "--dry-run")
    assert (code, "18,000 samples of 5 sensors would be taken" in out) == (Exit.DONE, True)
    found = imported(capsys, "history.parquet", "-t", one, *mapping)
    assert (found["stored"], found["rejected"]) == (18_000, {})
    store = open_store(one)
    result = store.query("**", **DAY)
    assert sorted(set(result.units.tolist())) == ["", "bar", "degC", "kWh"]
    for name, decimals in (("temperature", 1), ("pressure", 2), ("speed", 0), ("energy", 3), ("torque", 2)):
        values = store.query(f"**/{name}", **DAY).columns["value"].tolist()
        assert values == [round(v, decimals) for v in columns[name].tolist()], name
    for form in ("parquet", "csv"):
        command(capsys, "export", "**", "-t", one, "--to", form, *SPAN, "--format", form)
        again = imported(capsys, f"{form}/day=*/*", "-t", one)
        assert (again["stored"], again["duplicates"]) == (0, 18_000), "they are the same raw values"
    assert imported(capsys, "csv/day=*/*", "-t", other)["stored"] == 18_000
    assert open_store(other).query("**", **DAY).to_arrow().equals(result.to_arrow())


def test_the_adapter_goes_on_where_the_history_ends(cwd, capsys):
    plant = metered_plant(cwd / "one")
    metered_history(cwd / "history.parquet", 60)
    imported(capsys, "history.parquet", "-t", plant, "--path", "leon/paint/line1/oven1/{key}")
    directory = load_directory(LocalDisk(cwd / "one" / "store"))
    n_slots = directory.n_slots
    check_plant(load_plant(plant)).adapters["ovens"].declare(directory)
    assert (directory.n_slots, n_slots) == (3, 3), "its groups are those that it would define"
    assert directory.layout(directory.slot("leon/paint/line1/oven1", "u16")).columns[0].high == 400


def test_what_lies_between_two_steps_is_refused_by_name(cwd, capsys):
    plant = metered_plant(cwd / "one")
    rows = ["ts,temperature,speed", "2026-03-02T08:00:00Z,198.6,1", "2026-03-02T08:00:01Z,198.65,2"]
    (cwd / "h.csv").write_text("\n".join(rows) + "\n")
    code, out, err = command(
        capsys, "import", "h.csv", "-t", plant, "--path", "leon/paint/line1/oven1/{key}", "--yes"
    )
    assert (code, "3 stored" in out) == (Exit.DONE, True)
    assert "refused: 1 samples, wrong-type" in err
    assert "sensor 'leon/paint/line1/oven1/temperature' stores u16 * 0.1 -50" in err
    assert "-50 to 6503.5 in steps of 0.1; 198.65 is none of them" in err


def test_a_store_that_keeps_other_types_goes_on_keeping_them(cwd, capsys):
    plant = metered_plant(cwd / "one")
    (cwd / "h.csv").write_text("ts,temperature\n2026-03-02T08:00:00Z,198.65\n")
    mapping = ["--path", "leon/paint/line1/oven1/{key}"]
    assert imported(capsys, "h.csv", "-t", cwd / "one" / "store", *mapping)["stored"] == 1
    assert imported(capsys, "h.csv", "-t", plant, *mapping)["duplicates"] == 1


def test_times_as_numbers_and_chosen_columns(cwd, capsys):
    (cwd / "n.csv").write_text("t,a,b\n1772438400,1,2\n1772438401,3,4\n")
    mapping = ["--time", "t", "--time-unit", "s", "--path", "l/a/l/d/{key}", "--column", "a"]
    assert imported(capsys, "n.csv", "-t", "store", *mapping)["stored"] == 2
    result = open_store(cwd / "store").query("**", **DAY)
    assert (result.paths.tolist(), result.ts_ns.tolist()) == (["l/a/l/d/a"], [T0, T0 + NS])


# --- export --------------------------------------------------------------------------------------------------


def test_a_store_goes_through_files_and_comes_back(cwd, capsys):
    import_table(cwd, long_table(0, 2 * HOUR))
    for form in ("parquet", "csv"):
        code, out, err = command(
            capsys, "export", "**", "-t", "store", "--to", form, *SPAN, "--format", form, "--json"
        )
        assert (code, err) == (Exit.DONE, "")
        assert json.loads(out)["rows"] == 14_400
        assert imported(capsys, f"{form}/day=*/*", "-t", f"again-{form}")["stored"] == 14_400
        one, other = (open_store(cwd / s).query("**", **DAY) for s in ("store", f"again-{form}"))
        assert one.to_arrow().equals(other.to_arrow())


def test_parts_by_day_are_one_table_for_other_tools(cwd, capsys, monkeypatch):
    monkeypatch.setattr("headrace.store.query.SLICE_SAMPLES", 10_000)
    import_table(cwd, long_table(14 * HOUR, 4 * HOUR))
    code, out, _ = command(
        capsys,
        "export",
        "**/temperature",
        "-t",
        "store",
        "--to",
        "out",
        "--last",
        "1d",
        "--every",
        "1m",
        "--agg",
        "count,mean",
    )
    assert code == Exit.DONE
    assert "480 rows of 2 sensors, 2 days" in out
    counts = duckdb.sql(
        "SELECT day, count(*), sum(count) FROM read_parquet('out/*/*.parquet', hive_partitioning = true) GROUP BY day ORDER BY day"
    ).fetchall()
    assert [(str(d), n, int(s)) for d, n, s in counts] == [
        ("2026-03-02", 240, 14_400),
        ("2026-03-03", 240, 14_400),
    ]
    frame = pl.scan_parquet("out/*/*.parquet").collect()
    assert frame.columns == ["path", "ts", "count", "mean"]
    about = json.loads((cwd / "out" / "export.json").read_text())
    assert (about["rows"], about["agg"], about["missing"]) == (480, ["count", "mean"], [])
    assert len(list((cwd / "out").glob("day=*/part-*"))) == about["files"] > 2


def test_texts_and_arrow_streams(cwd, capsys):
    (cwd / "oven.csv").write_text(WIDE)
    imported(
        capsys,
        "oven.csv",
        "-t",
        "store",
        "--time",
        "timestamp",
        "--path",
        "leon/a/l/o/{key}",
        "--rename",
        "T in=inlet",
    )
    assert (
        command(capsys, "export", "**", "-t", "store", "--to", "out", *SPAN, "--format", "arrow")[0]
        == Exit.DONE
    )
    (part,) = (cwd / "out").glob("day=*/*.arrow")
    table = pa.ipc.open_stream(part.read_bytes()).read_all()
    assert table.column_names == ["path", "ts", "value", "quality", "text"]
    assert [t for t in table["text"].to_pylist() if t] == ["on", "off", "off"]


def test_a_folder_with_other_things_is_left_alone(cwd, capsys):
    import_table(cwd, long_table(0, 60))
    where = ["-t", "store", "--to", "out", "--last", "1h"]
    code, out, _ = command(capsys, "export", "**", *where, "--dry-run", "--json")
    assert json.loads(out)["days"] == ["2026-03-02"]
    assert not (cwd / "out").exists()
    assert command(capsys, "export", "**", *where)[0] == Exit.DONE
    code, _, err = command(capsys, "export", "**", *where)
    assert (code, "--yes replaces it" in err) == (Exit.CONFIG, True)
    assert command(capsys, "export", "**", *where, "--yes")[0] == Exit.DONE
    (cwd / "out" / "notes.txt").write_text("mine")
    code, _, err = command(capsys, "export", "**", *where, "--yes")
    assert (code, "holds other files (notes.txt)" in err) == (Exit.CONFIG, True)
    for arguments, said in (
        (["--agg", "mean"], "add --every 1m"),
        (["--every", "1m"], "add --agg mean"),
        (["--every", "7h", "--agg", "mean"], "do not fill a day evenly"),
        (["--every", "1m", "--agg", "middle"], "unknown aggregate 'middle'"),
    ):
        code, _, err = command(capsys, "export", "**", "-t", "store", "--to", "x", "--last", "1h", *arguments)
        assert (code, said in err) == (Exit.CONFIG, True), err


# --- store ---------------------------------------------------------------------------------------------------


def compact(folder):
    store = Store.open(LocalDisk(folder / "store"))
    policy = CompactionPolicy(min_age_s=0, grace_s=0)
    Compactor(store, VirtualClock(T0 + 3 * 86_400 * NS), policy=policy).run_once(force=True)


def test_status_says_what_is_where(cwd, capsys):
    import_table(cwd, long_table(0, HOUR), "one")
    compact(cwd)
    import_table(cwd, long_table(HOUR, 60), "two")
    code, out, _ = command(capsys, "store", "status", "-t", "store", "--json")
    facts = json.loads(out)
    assert code == Exit.DONE
    assert (facts["sensors"], facts["samples"], facts["damaged"]) == (2, 7_320, [])
    assert {name: t["samples"] for name, t in facts["tiers"].items()} == {"hot": 120, "warm": 7_200}
    assert facts["bytes"] == sum(t["bytes"] for t in facts["tiers"].values())
    assert [(p["day"], p["samples"], p["is_whole"]) for p in facts["partitions"]] == [
        ("2026-03-02", 7_200, True)
    ]
    code, out, _ = command(capsys, "store", "status", "-t", "store")
    assert "2026-03-02" in out
    assert command(capsys, "store", "status", "-t", cwd)[0] == Exit.UNREACHABLE


@pytest.mark.parametrize("tier", ["hot", "warm"])
def test_verify_finds_what_was_changed(cwd, capsys, tier):
    import_table(cwd, long_table(0, 300))
    if tier == "warm":
        compact(cwd)
    code, out, _ = command(capsys, "store", "verify", "-t", "store")
    assert code == Exit.DONE
    assert out.startswith("1 segments, 2 rows, 600 samples")
    assert out.endswith("sound\n")
    (segment,) = (cwd / "store" / "segments" / tier).rglob("*.parquet")
    sound, n_found = segment.read_bytes(), 0
    expected = open_store(cwd / "store").query("**", **DAY).to_arrow()
    rng = np.random.default_rng(0)
    for at in [4, len(sound) - 9, *rng.integers(4, len(sound), 25).tolist()]:
        data = bytearray(sound)
        data[at] ^= 1 << int(rng.integers(8))
        segment.write_bytes(data)
        code, out, _ = command(capsys, "store", "verify", "-t", "store", "--json")
        harms = json.loads(out)["damages"]
        if not harms:  # nobody reads that byte: a statistic of a page, in the tier whose names have no digest
            assert tier == "hot"
            assert open_store(cwd / "store").query("**", **DAY).to_arrow().equals(expected)
            continue
        assert (code, harms[0]["name"].endswith(segment.name)) == (Exit.FAILED, True), at
        n_found += 1
    assert n_found > 15
    segment.unlink()
    code, out, _ = command(capsys, "store", "verify", "-t", "store")
    assert (code, "is missing; restore it from a backup" in out) == (Exit.FAILED, True)


def test_headers_that_lie_are_found_though_their_checksums_hold(cwd):
    """A defect of ours would write such a file: everything is consistent but what the row says of itself."""
    import_table(cwd, long_table(0, 300))
    compact(cwd)
    disk = LocalDisk(cwd / "store")
    store = Store.open(disk)
    (manifest,) = store.refresh().manifests.values()
    (info,) = manifest.files
    table = open_segment(disk, info.name).table()
    for name, value in (("max", 1e9), ("count", 7), ("n_samples", 5)):
        column = table[name].to_pylist()
        column[1] = value
        place, kind = table.column_names.index(name), table.schema.field(name)
        lying = write_segment(info.name, [table.set_column(place, kind, pa.array(column, kind.type))])
        (cwd / "store" / info.name).write_bytes(lying.data)
        found = Verification()
        verify_segment_rows(disk, lying.info, found)
        what = "number of samples" if name == "n_samples" else name
        assert any(f"its {what} is" in harm.sentence for harm in found.harms), (name, found.harms)


def test_verify_reads_texts_waves_and_both_kinds_of_rows(cwd, capsys):
    (cwd / "oven.csv").write_text(WIDE)
    imported(
        capsys,
        "oven.csv",
        "-t",
        "store",
        "--time",
        "timestamp",
        "--path",
        "leon/a/l/o/{key}",
        "--rename",
        "T in=inlet",
    )
    for kinds in ("hot", "warm"):
        found = verify_store(LocalDisk(cwd / "store"), Store.open(LocalDisk(cwd / "store")))
        assert (found.is_sound, found.n_samples) == (True, 8), (kinds, found.harms)
        compact(cwd)


def test_parquet_of_other_tools_with_ints_bools_and_decimals(cwd, capsys):
    from decimal import Decimal

    ts = pa.array([T0, T0 + NS], pa.timestamp("ns", "UTC"))
    columns = {
        "ts": ts,
        "i": pa.array([1, 2], pa.int16()),
        "b": pa.array([True, False]),
        "d": pa.array([Decimal("1.5"), Decimal("2.5")]),
    }
    pq.write_table(pa.table(columns), cwd / "w.parquet")
    assert imported(capsys, "w.parquet", "-t", "store", "--path", "l/a/l/d/{key}")["stored"] == 6
