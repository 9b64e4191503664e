"""Plain lines of CSV: the scanner reads what the slower reader of texts reads, and leaves to it what it can't."""

import numpy as np
import pyarrow as pa
import pytest

from headrace.adapters.payloads import csv as csv_payload
from headrace.adapters.payloads import csv_plain, csv_values
from headrace.adapters.payloads.chunks import LineChunk, LineFormats
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_rules import LineRule, compile_paths
from headrace.adapters.payloads.time_scanner import time_of_text
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.layouts import Column, Layout
from headrace.core.problems import validate_section
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory

T = 1_700_000_000
ARRIVAL_NS = 1_800_000_000_000_000_000


class Source:
    """A decoder of one source, and how many of its lines the scanner took."""

    def __init__(self, directory=None, zone="Europe/Madrid", **rule):
        given = {"path": "leon/d/{key}", "time": "ts", **rule}
        self.rule = validate_section(LineRule, {k: v for k, v in given.items() if v is not None}, "rule")
        self.directory = directory or SensorDirectory()
        formats = LineFormats("x", self.directory, DeviceGroups(self.directory), (), zone)
        self.decoder = formats.csv(self.rule, compile_paths(self.rule, (), (), False), {})
        self.number = 1

    def read(self, text):
        data = text.encode()
        decoded = self.decoder.decode(LineChunk("f", data, self.number, ARRIVAL_NS))
        self.number += data.count(b"\n")
        found = []
        for batch in decoded.batches:
            batch.check_columns()
            found += [
                (r.path, r.ts_ns, r.value, int(r.quality)) for r in readings(batch, self.directory, 10**6)
            ]
        told = sorted((str(r.code), r.source, r.n_samples, r.detail) for r in decoded.rejects)
        return sorted(found, key=repr), told


def both(monkeypatch, texts, **rule):
    """What becomes of texts with the scanner, and how many rows it took; it must be what comes of them without it."""
    taken = []
    scan = csv_plain.scan_rows

    def counted(*arguments):
        scan(*arguments)
        taken.append(int(arguments[-1].counts[csv_plain.ROWS]))

    monkeypatch.setattr(csv_plain, "scan_rows", counted)
    fast, slow = Source(**rule), Source(**rule)
    found = [fast.read(text) for text in texts]
    n = sum(taken)
    monkeypatch.setattr(csv_plain.PlainCsv, "suits", lambda *_: False)
    assert found == [slow.read(text) for text in texts]
    monkeypatch.undo()
    return found, n


CELLS = [
    "1", "-2", "+3", "1.5", "-0.25", ".5", "7.", "-.5", "1e3", "1E-2", "2.5e+2", "-0", "0", " 4", "5 ", " ", "",
    "123456789012345.6", "1234567890123456789", "9007199254740992", "9007199254740993", "1.2345678901234567", "1e22",
    "1e23", "1e-30", "1e400", "1e-400", "1e99999", "1e", "e5", ".", "-", "+", "1.2.3", "1_0", "0x1", "nan", "inf", "true",
    "x", '"6"', '"', "1 2", "\t8", "0.1", "3.141592653589793", "2.2250738585072014e-308", "12345678901234567.5",
]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_cell_is_what_the_slower_reader_makes_of_it(monkeypatch, end):
    texts = [f"ts,a,b{end}{T},1.5,2{end}"]
    texts += [f"{T + 1},{cell},3{end}{T + 2},4,{cell}{end}{T + 3},5,6{end}" for cell in CELLS]
    _, n = both(monkeypatch, texts)
    assert n > len(CELLS)


def test_plain_lines_are_taken_by_the_scanner(monkeypatch):
    lines = [
        "ts,a,b",
        *(f"{T + i},{i}.25,{i}" for i in range(50)),
        f"{T + 60},,",
        "",
        "ts,a,b",
        f"{T + 61},1,",
    ]
    found, n = both(monkeypatch, ["\n".join(lines) + "\n"])
    assert n == 52
    assert len(found[0][0]) == 101
    assert found[0][1] == []


def test_numbers_are_those_of_python(monkeypatch):
    random = np.random.default_rng(5)
    values = [repr(v) for v in (random.standard_normal(120) * 10.0 ** random.integers(-20, 12, 120)).tolist()]
    values += [f"{v:.3f}" for v in random.uniform(-1e6, 1e6, 40).tolist()]
    text = "ts,a\n" + "".join(f"{T + i},{value}\n" for i, value in enumerate(values))
    found, n = both(monkeypatch, [text])
    assert [v for _, _, v, _ in sorted(found[0][0], key=lambda r: r[1])] == [float(v) for v in values]
    assert n > 100


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["1700000000", "1700000001000", "-5", "+6", " 7 "], 5), (["2026-11-23T15:06:00Z", "2026-11-23 15:06:00.5+01:00"], 2),
        (["2026-11-23t15:06:00z", "2026-11-23T15:06:00-00:30", "2026-11-23T15:06:00.123456789Z"], None),
        (["2026-11-23 15:06:00", "2026-06-23T15:06:00.25", "2026-11-23 15:06"], 2),
        (["2026-11-23 15:06:00", "2026-11-23 15:06:00Z"], None), (["2026-11-23 15:06:00", "1700000000"], None),
        (["1700000000", "2026-11-23 15:06:00Z"], None), (["1700000000.5", "17x"], None), (["99999999999999999", "1"], None),
        (["2026-11-23T15:06:00Z", '"2026-11-23T15:06:00Z"', "2026-11-23T15:06:00Z\r5"], None), (["", "1700000000"], None),
        (["12345678901234567890", "1"], None),
    ],
)  # fmt: skip
def test_times_are_those_of_the_slower_reader(monkeypatch, times, expected):
    text = "a,ts\n" + "".join(f"1,{time}\n" for time in times)
    _, n = both(monkeypatch, ["a,ts\n1,1700000000\n", text])
    if expected is not None:
        assert n == expected + 1


def test_a_number_that_is_no_time_is_left_to_the_slower_reader(monkeypatch):
    (found,), _ = both(monkeypatch, [f"ts,a\n{T},1\n99999999999999999,2\n{T},3\n"], time_unit="s")
    assert [code for code, *_ in found[1]] == ["bad-time"]
    (found,), _ = both(monkeypatch, ["ts,a\n99999999999999999,2\n"], time_unit="s")
    assert [code for code, *_ in found[1]] == ["bad-time"]


def test_columns_without_interest_and_other_dialects(monkeypatch):
    found, n = both(monkeypatch, [f"ts,a,note,b\n{T},1,x y,2\n{T + 1},3,,4\n"], only=["a", "b"])
    assert (len(found[0][0]), n) == (4, 2)
    both(monkeypatch, [f'ts,a,note\n{T},1,"x"\n{T},2,y\n{T},3,z\r\n{T},4,a\rb\n'], only=["a"])
    found, n = both(monkeypatch, [f"ts;a\n{T};1,5\n{T + 1};2.5\n{T + 2};1,2,3\n"], delimiter=";", decimal=",")
    assert ([row[2] for row in found[0][0]], n) == ([1.5, 2.5], 2)
    found, n = both(monkeypatch, [f"ts a\n{T} 5\n{T + 1} 6\n"], delimiter=" ")
    assert n == 2
    found, n = both(monkeypatch, ["a\n1\n2\n\n3\n"], time=None)
    assert [row[1] - ARRIVAL_NS for row in found[0][0]] == [1, 2, 4]
    assert n == 3


def test_lines_of_another_size_stop_the_scanner(monkeypatch):
    found, _ = both(monkeypatch, [f"ts,a,b\n{T},1,2\n{T},3\n{T},4,5,6\n{T},7,8\n", f"{T},\n", f"{T},1,2,\n"])
    assert sum(len(told) for _, told in found) == 4
    both(monkeypatch, ["a,ts\n1\n", f"2,{T}\n"])


def test_more_and_more_lines_are_left_to_the_slower_reader(monkeypatch):
    lines = [f"{T + i},{i}" + (",1" if i % 3 else "") for i in range(900)]
    found, _ = both(monkeypatch, ["ts,a\n" + "\n".join(lines) + "\n"])
    assert len(found[0][0]) == 300


def test_sensors_of_other_types_are_left_to_the_slower_reader(monkeypatch):
    both(monkeypatch, [f"ts,a,b\n{T},1,ran\n{T + 1},2,stopped\n", f"{T + 2},3,4\n"])
    both(monkeypatch, [f"ts,a,b\n{T},1,2\n"], types={"a": "i64", "b": "f64"})
    for column in (Column("a"), Column("a", scale=0.5)):
        for dtype in ("f64", "i16"):
            for_each = []
            for _ in range(2):
                directory = SensorDirectory()
                directory.define("leon/d", Layout(dtype, (column, Column("c"))), dtype)
                source = Source(directory)
                for_each.append(source.read(f"ts,a\n{T},1\n{T + 1},2.5\n"))
                monkeypatch.setattr(csv_plain.PlainCsv, "suits", lambda *_: False)
            monkeypatch.undo()
            assert for_each[0] == for_each[1]


def test_a_sensor_of_another_adapter_is_told(monkeypatch):
    directory = SensorDirectory()
    directory.define("leon", Layout("f64", (Column("d/a"),)), "f64")
    found, told = Source(directory).read(f"ts,a,b\n{T},1,2\n")
    assert [row[0] for row in found] == ["leon/d/b"]
    assert [n for _, _, n, _ in told] == [1]


def test_names_that_are_numbers_are_no_values(monkeypatch):
    found, _ = both(monkeypatch, ["0,1\n5,6\n0,1\n7,8\n"], time=None)
    assert sorted(row[2] for row in found[0][0]) == [5, 6, 7, 8]


TEXTS = [
    "2026-11-23T15:06:00Z", "2026-11-23T15:06:00", "2026-11-23 15:06:00.5", "2026-11-23 15:06:00,25+01:00",
    "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-23X15:06:00Z",
    "2026-11-23T15-06:00Z", "2026-11-23T15:06-00Z", "2026/11/23T15:06:00Z", "2026-11/23T15:06:00Z",
    "2026-11-23T24:06:00Z", "2026-11-23T15:60:00Z", "2026-11-23T15:06:60Z", "2026-11-23T15:06:00.Z",
    "2026-11-23T15:06:00+24:00", "2026-11-23T15:06:00+01:60", "2026-11-23T15:06:00+0100", "2026-11-23T15:06:00+01-00",
    "2026-11-23T15:06:00Zx", "2026-11-00T15:06:00Z", "20x6-11-23T15:06:00Z", "202-11-23", "2026-11-23T15:06:00.1234567891Z",
    "2100-02-29T00:00:00Z", "2000-02-29T00:00:00z", "2026-11-23t15:06:00-23:59", "1600-01-01T00:00:00Z",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_the_times_that_python_reads(text):
    data = np.frombuffer(text.encode() + b",", np.uint8)
    reader = TimeReader("auto", "UTC")
    for is_zoned in (True, False):
        found = int(time_of_text(data, 0, len(text), is_zoned))
        if found != NO_TIME:
            assert found == reader.read(text)
            assert is_zoned == (text[19:].strip("0123456789.,") != "")


TEXTS = [
    "1",
    " 2.5 ",
    "-0",
    "1e3",
    "nan",
    "inf",
    "1_0",
    "",
    "  ",
    "true",
    "False",
    "on",
    "9007199254740993",
    "9" * 400,
    "up",
]


@pytest.mark.parametrize("start", range(len(TEXTS)))
def test_cells_are_the_same_in_columns_as_alone(start):
    """Of a message: by columns from eight lines on, whatever else its columns hold."""
    texts = (TEXTS[start:] + TEXTS[:start]) * 2
    for some in (texts, texts[:1] * 9, ["1", "2"] * 5 + texts[:1], texts[:3]):
        found = csv_payload._values([[text, "x"] for text in some], "\n".join(some))
        assert repr(found) == repr([(csv_payload._cell(text), "x") for text in some])


@pytest.mark.parametrize("last", [*TEXTS, " on", "x" * 2_000, None])
def test_texts_behind_the_first_few_cells_are_found(last):
    """Whether a column is one of numbers is tried with a few of them first."""
    for first in (["1"] * 20, ["up", "down"] * 10):
        texts = pa.array([*first, last], pa.string())
        column = csv_values.CellColumn(texts)
        alone = csv_values.CellColumn(pa.array([last], pa.string()))
        assert column.kind[-1] == alone.kind[-1]
        assert repr(column.numbers[-1]) == repr(alone.numbers[-1])
        wanted = csv_values.WantedCells.typed("u32")
        read, other = column.read(wanted), alone.read(wanted)
        assert read.values[-1].as_py() == other.values[-1].as_py()
        assert [value.as_py() for value in read.values][:20] == first
        assert (20 in read.bad) == (0 in other.bad)
