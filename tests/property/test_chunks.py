"""Lines of files and programs: the same samples wherever they are cut, each value a sample or in a reject."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.adapters.exec.outlet import LineOutlet
from headrace.adapters.files.folder import TextSource
from headrace.adapters.files.positions import FilePosition
from headrace.adapters.payloads.chunks import LineChunk, LineFormats, cut_line_protocol, cut_lines
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_rules import LineRule, compile_paths
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory

T0 = 1_700_000_000_000
ARRIVAL_NS = 1_800_000_000_000_000_000


class Reading:
    """What comes of one source, by path, time and value."""

    def __init__(self, kind: str, rule: LineRule) -> None:
        self.directory = SensorDirectory()
        self.formats = LineFormats("x", self.directory, DeviceGroups(self.directory), (), "UTC")
        paths = compile_paths(rule, (), (), kind == "lines")
        make = {"csv": self.formats.csv, "json": self.formats.json}
        self.decoder = self.formats.lines(rule, paths) if kind == "lines" else make[kind](rule, paths, {})
        self.samples: list[tuple[str, int, object]] = []
        self.rejects: list[tuple[str, str, int]] = []
        self.n_in = 0

    def take(self, decoded) -> None:
        for batch in decoded.batches:
            batch.check_columns()
            for r in readings(batch, self.directory, 10**6):
                self.samples.append((r.path, r.ts_ns, r.value))
        self.rejects += [(str(r.code), r.source, r.n_samples) for r in decoded.rejects]
        self.n_in += sum(b.n_samples for b in decoded.batches) + sum(r.n_samples for r in decoded.rejects)

    @property
    def found(self):
        return sorted(self.samples, key=repr)


def whole(kind, rule, data):
    one = Reading(kind, rule)
    one.take(one.decoder.decode(LineChunk("f", data, 1, ARRIVAL_NS)))
    return one


def in_parts(kind, rule, data, at):
    """The same bytes, as they come in pieces that end at the places `at`."""
    one = Reading(kind, rule)
    outlet = LineOutlet("x", one.decoder, cut_line_protocol if kind == "lines" else cut_lines)
    edges = sorted({0, len(data), *(min(a, len(data)) for a in at)})
    n_lines = 0
    for first, last in itertools.pairwise(edges):
        for decoded in outlet.feed(data[first:last], ARRIVAL_NS + n_lines):
            one.take(decoded)
    for decoded in outlet.finish(ARRIVAL_NS, is_clean=True):
        one.take(decoded)
    return one


places = st.lists(st.integers(0, 2_000), max_size=12)
numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str), st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-1000, 1000, places=2).map(str), st.sampled_from(["1e400", "+5", ".5", "7.", "-0"]),
)  # fmt: skip
odd = st.sampled_from(
    [
        "",
        " ",
        "true",
        "False",
        "x",
        "ran",
        "1_0",
        '"',
        'a"b',
        '""',
        '"q"',
        '"a,b"',
        "é",
        "\x00",
        "0x1",
        "\r",
        "n" * 1_100,
    ]
)
cells = st.one_of(numbers, numbers, numbers, odd)


def csv_line(number, row):
    return f"{T0 + number}," + ",".join(row)


csv_files = st.lists(
    st.one_of(
        st.tuples(cells, cells, cells).map(lambda row: ("row", row)),
        st.sampled_from(["", "ts,a,b,c", "what is this?", "1,2", "x,1,2,3", ",1,2,3"]).map(lambda text: ("line", text)),
    ),
    max_size=25,
)  # fmt: skip
CSV = LineRule(path="leon/d/{key}", time="ts")


def csv_bytes(items, end):
    lines = ["ts,a,b,c"]
    lines += [csv_line(n, item) if kind == "row" else item for n, (kind, item) in enumerate(items)]
    return end.join(lines).encode() + end.encode()


@settings(max_examples=60)
@given(csv_files, places, st.sampled_from(["\n", "\r\n"]))
@example([("row", ("1", "2", "x"))] * 3 + [("row", ('"', "2", "true"))], [20, 21, 40], "\n")
def test_csv_is_the_same_wherever_it_is_cut(items, at, end):
    data = csv_bytes(items, end)
    one, other = whole("csv", CSV, data), in_parts("csv", CSV, data, at)
    assert one.found == other.found
    assert one.n_in == other.n_in
    key = lambda reject: (reject[0], reject[1].rpartition(":")[2])  # noqa: E731
    some = {key(reject) for reject in one.rejects}
    assert some <= {key(reject) for reject in other.rejects}  # a large chunk joins what is too much


def as_python_reads(data):
    """What a plain reading of CSV gives for columns of numbers, by Python's own reader."""
    out = []
    for text in data.decode().split("\n"):
        row = next(csv.reader(io.StringIO(text.removesuffix("\r"), newline="")), [])
        if len(row) != 4 or row[0] == "ts":
            continue
        for name, cell in zip("abc", row[1:], strict=True):
            try:
                value = float(cell.strip())
            except ValueError:
                continue
            is_exact = not cell.strip().lstrip("+-").isdecimal() or abs(int(cell)) <= 2**53
            if "_" not in cell and is_exact:
                out.append(
                    (f"leon/d/{name}", int(row[0]) * 1_000_000, value if math.isfinite(value) else None)
                )
    return sorted(out, key=repr)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(*[st.one_of(numbers, st.sampled_from(["", "x", "true", '"1.5"', "1_0"]))] * 3), max_size=25
    )
)
def test_numbers_of_csv_are_those_that_python_reads(rows):
    data = csv_bytes([("row", row) for row in rows], "\n")
    one = whole("csv", LineRule(path="leon/d/{key}", time="ts", types=dict.fromkeys("abc", "f64")), data)
    assert one.found == as_python_reads(data)
    n_cells = sum(bool(cell.strip('" ')) for row in rows for cell in row)
    assert one.n_in == n_cells


keys = st.sampled_from(["a", "b", "c"])
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70), st.booleans(), st.text(max_size=5),
    st.none(),
)  # fmt: skip
objects = st.dictionaries(keys, values, min_size=1, max_size=3)
json_lines = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 10**6), objects).map(lambda o: json.dumps({"ts": T0 + o[0], **o[1]})),
        st.sampled_from(["", "{", "[1]", '{"ts": "x", "a": 1}']),
    ),
    max_size=20,
)  # fmt: skip


@settings(max_examples=40)
@given(json_lines, places)
def test_json_is_the_same_wherever_it_is_cut(lines, at):
    data = ("\n".join(lines) + "\n").encode()
    rule = LineRule(path="leon/d/{key}", time="ts")
    one, other = whole("json", rule, data), in_parts("json", rule, data, at)
    assert one.found == other.found
    lines_of = lambda rejects: [(code, source.rpartition(":")[2], n) for code, source, n in rejects]  # noqa: E731
    assert lines_of(one.rejects) == lines_of(other.rejects)


texts = st.text('ab "=\\\n,x', max_size=8).map(lambda t: t.replace("\\", "\\\\").replace('"', '\\"'))
fields = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr), st.integers(-9, 9).map(lambda i: f"{i}i"),
    texts.map(lambda t: f'"{t}"'), st.sampled_from(["t", "x", '"open', ""]),
)  # fmt: skip
protocol_lines = st.lists(
    st.tuples(st.sampled_from(["m", "m,host=a", 'm,t="x', "#", ""]), fields, fields, st.integers(0, 10**6)),
    max_size=15,
)
LINES = LineRule(path="leon/{host}/{measurement}/{field}")


@settings(max_examples=60)
@given(protocol_lines, places)
@example([("m", '"a\nb="c"', "1", 1), ("m", '"x\ny=\\"z"', '"\n\n"', 2)], [3, 6, 12, 14, 30])
def test_line_protocol_is_the_same_wherever_it_is_cut(lines, at):
    data = "".join(
        f"{key} a={a},b={b} {T0 * 10**6 + n}\n" if len(key) > 1 or key == "m" else f"{key}\n"
        for key, a, b, n in lines
    ).encode()
    one, other = whole("lines", LINES, data), in_parts("lines", LINES, data, at)
    if '"open' not in {text for line in lines for text in line[1:3]}:
        assert one.found == other.found
    assert one.n_in == other.n_in or '="' in data.decode()


@pytest.mark.parametrize(
    ("kind", "rule", "data"),
    [
        ("csv", CSV, csv_bytes([("row", ("1.5", "x", "")), ("line", "bad"), ("row", ("2", '"y,z"', "true"))], "\r\n")),
        ("csv", LineRule(path="leon/d/{key}"), b"a,b\n1,2\n3,4\n"),
        ("csv", LineRule(time="ts"), b"path,ts,value\nl/d/a,1700000000,1.5\nl/d/b,1700000000,x\nl/d/c,1700000001,true\n"),
        ("json", LineRule(), b'{"device": "l/d", "ts": 1700000000, "a": 1}\n{"path": "l/d/b", "value": "x"}\n{\n'),
        ("lines", LINES, b'm,host=h a=1,b="x\ny",c=t 1700000000000000000\nm a=2i 7\n'),
    ],
)  # fmt: skip
def test_a_file_that_grows_byte_by_byte_gives_what_the_whole_gives(tmp_path: Path, kind, rule, data):
    """Every way in which a growing file can be read: a look after each byte."""
    file = tmp_path / "f"
    file.touch()
    found = file.stat()
    source, position = (
        TextSource(file, (found.st_dev, found.st_ino)),
        FilePosition(found.st_dev, found.st_ino),
    )
    one, at, line = Reading(kind, rule), 0, 1
    cut = cut_line_protocol if kind == "lines" else cut_lines
    with file.open("ab", buffering=0) as out:
        for byte in data:
            out.write(bytes([byte]))
            read = source.read(position, at, None, cut)
            if read.data:
                one.take(one.decoder.decode(LineChunk("f", read.data, line, ARRIVAL_NS + line - 1)))
                at, line = at + len(read.data), line + read.data.count(b"\n")
                position = FilePosition(*position.key, head_bytes=read.head_bytes, head=read.head)
    assert at == len(data)
    expected = whole(kind, rule, data)
    assert one.samples
    assert (one.found, one.rejects) == (expected.found, expected.rejects)
