"""Whole lines of CSV, JSON and line protocol: every kind of cell, every kind of mistake, and what is decoded again."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.chunks import (
    LineChunk,
    LineFormats,
    cut_line_protocol,
    cut_lines,
    device_path,
)
from headrace.adapters.payloads.csv_cells import CsvDialect, CsvText
from headrace.adapters.payloads.csv_values import CellColumn, WantedCells, read_times
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_rules import LineRule, compile_paths
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME, NS
from headrace.core.errors import ConfigError
from headrace.core.events import Reject
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.problems import InvalidConfig, validate_section
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory

T = 1_700_000_000
ARRIVAL_NS = 1_800_000_000 * NS
SINCE = (ARRIVAL_NS - T * NS) / NS


class Bench:
    """A decoder of one source and what came of it: (path, seconds after T, value)."""

    def __init__(self, kind="csv", directory=None, names=(), **rule):
        self.rule = validate_section(LineRule, rule, "rule")
        self.directory = directory or SensorDirectory()
        self.formats = LineFormats("x", self.directory, DeviceGroups(self.directory), (), "Europe/Madrid")
        self.kind, self.names = kind, dict(names)
        self.decoder = self.make()
        self.number = 1
        self.rejects = []

    def make(self):
        paths = compile_paths(self.rule, tuple(self.names), (), self.kind == "lines")
        if self.kind == "lines":
            return self.formats.lines(self.rule, paths)
        return (self.formats.csv if self.kind == "csv" else self.formats.json)(self.rule, paths, self.names)

    def read(self, data):
        data = data if isinstance(data, bytes) else data.encode()
        decoded = self.decoder.decode(LineChunk("f.csv", data, self.number, ARRIVAL_NS))
        self.number += data.count(b"\n")
        return self.take(decoded)

    def take(self, decoded):
        self.rejects = decoded.rejects
        found = []
        for batch in decoded.batches:
            batch.check_columns()
            assert batch.origin == "x"
            some = readings(batch, self.directory)
            found += [(r.path.rpartition("/")[2], (r.ts_ns - T * NS) / NS, r.value) for r in some]
        return sorted(found, key=str)

    def again(self, reject):
        return self.take(self.decoder.again(reject.raw, reject.source, reject.arrival_ns))

    @property
    def told(self):
        return [(str(r.code), r.source, r.n_samples) for r in self.rejects]


def csv(**rule):
    return Bench(path="leon/d/{key}", time="ts", **rule)


# --- CSV: kinds of cells -----------------------------------------------------------------------------


def test_each_kind_of_cell_becomes_what_it_is():
    bench = csv()
    found = bench.read(f"ts,n,b,t,e\n{T},1.5,true,ran,\n{T + 1}, 2 ,False, ran ,\n{T + 2},,,,\n")
    assert found == [
        ("b", 0.0, 1), ("b", 1.0, 0), ("n", 0.0, 1.5), ("n", 1.0, 2.0), ("t", 0.0, "ran"), ("t", 1.0, "ran"),
    ]  # fmt: skip
    assert bench.rejects == []
    columns = {
        c.name: (layout.dtype, c.kind, c.labels) for layout in bench.directory.layouts for c in layout.columns
    }
    assert columns["b"] == ("u8", Kind.DISCRETE, ("false", "true"))
    assert columns["t"] == ("u32", Kind.DISCRETE, ())
    assert columns["n"] == ("f64", Kind.ANALOG, ())
    assert "e" not in columns


def test_types_and_units_are_taken_as_given():
    bench = csv(types={"i": "i64", "b": "bool", "s": "string", "f": "f64"}, units={"f": "bar"})
    found = bench.read(
        f"ts,i,b,s,f\n{T},9007199254740993,1,12,3\n{T + 1},-4,true,true,x\n{T + 2},1.5,2,{'y' * 1_025},\n"
    )
    assert found == [
        ("b", 0.0, 1), ("b", 1.0, 1), ("f", 0.0, 3.0), ("i", 0.0, 9007199254740993), ("i", 1.0, -4),
        ("s", 0.0, "12"), ("s", 1.0, "true"),
    ]  # fmt: skip
    assert bench.told == [("wrong-type", "f.csv:3", 1), ("wrong-type", "f.csv:4", 3)]
    assert bench.rejects[0].detail == "key 'f' has text 'x', expected a number"
    assert bench.rejects[1].detail == "key 'i' has 1.5, which i64 can't hold"
    assert bench.rejects[0].raw == f"ts,i,b,s,f\n{T + 1},-4,true,true,x".encode()
    assert bench.rejects[0].arrival_ns == ARRIVAL_NS + 2
    one = csv(types={"s": "string", "b": "bool"})
    one.read(f"ts,s,b\n{T},{'y' * 1_025},7\n{T},,x\n")
    assert [r.detail for r in one.rejects] == [
        "a text longer than 1,024 characters, or with a NUL in it".join(["key 's' has ", ""]),
        "key 'b' has text 'x', expected true or false, 1 or 0",
    ]


def test_large_integers_are_never_rounded():
    bench = csv()
    found = bench.read(
        f"ts,a,b,c\n{T},9007199254740993,1,99999999999999999999\n{T + 1},1,9007199254740993,2\n"
    )
    assert found == [("a", 0.0, 9007199254740993), ("a", 1.0, 1), ("b", 0.0, 1.0), ("c", 1.0, 2.0)]
    assert [r.detail for r in bench.rejects] == [
        "key 'c' has 99999999999999999999, which a 64-bit float can't hold exactly; declare the key as i64 under types",
        "key 'b' has 9007199254740993, which a 64-bit float can't hold exactly; declare the key as i64 under types",
    ]
    assert bench.read(f"{T + 2},{'9' * 25},x,{'9' * 400}\n") == []
    assert bench.told == [("wrong-type", "f.csv:4", 3)]


def test_what_is_no_finite_number_is_kept_as_such():
    found = csv().read(f"ts,a,b\n{T},nan,-inf\n{T + 1},1e400,x\n{T + 2},-1e999,\n")
    assert [value for key, _, value in found if key == "a"] == [None, None, None]


def test_numbers_with_a_comma():
    bench = csv(delimiter=";", decimal=",")
    assert bench.read(f"ts;a;b\n{T};1,5;-2,25\n{T + 1};1.5;x,y\n") == [
        ("a", 0.0, 1.5),
        ("a", 1.0, 1.5),
        ("b", 0.0, -2.25),
    ]
    assert bench.told == [("wrong-type", "f.csv:3", 1)]


def test_a_sensor_keeps_the_type_it_has():
    directory = SensorDirectory()
    columns = (Column("a"), Column("on", Kind.DISCRETE), Column("g", scale=0.5))
    directory.define("leon/d", Layout("u8", columns), "u8")
    directory.define("leon/d", Layout("u32", (Column("n"),)), "u32")
    directory.define("leon/d", Layout("f32", (Column("f"),)), "f32")
    bench = csv(directory=directory)
    found = bench.read(f"ts,a,on,n,f,g\n{T},255,true,7,0.1,1.5\n{T + 1},256,2,-1,x,0.7\n")
    assert found == [
        ("a", 0.0, 255), ("f", 0.0, float(np.float32(0.1))), ("g", 0.0, 1.5), ("n", 0.0, 7), ("on", 0.0, 1), ("on", 1.0, 2),
    ]  # fmt: skip
    assert bench.told == [
        ("wrong-type", "f.csv:3", 3),
        ("wrong-type", "f.csv:2", 1),
    ]  # and 0.7 is between two steps
    assert bench.rejects[0].detail == "key 'a' has 256, which u8 can't hold"


# --- CSV: lines --------------------------------------------------------------------------------------


def test_lines_that_are_none_are_left_out():
    bench = csv(comment="#", skip=2)
    data = f"made by a logger\n\nts,a\n# pause\n\r\n{T},1\nts,a\n{T + 1},2\r\n"
    assert bench.read(data) == [("a", 0.0, 1.0), ("a", 1.0, 2.0)]
    assert bench.rejects == []
    assert bench.read("# only this\n") == []
    assert csv(skip=3).read("a\nb\n") == []


def test_bad_lines_cost_no_other():
    bench = csv()
    data = f'ts,a,b\n{T},1\n{T},1,2,3\nx,1,2\n{T},"1,2\n{T},"q",2\n,5,6\n{T + 1},3,4\n{T},1\r2,3\n{T},a"b,1\n'
    assert bench.read(data) == [
        ("a", 0.0, 'a"b'), ("a", 0.0, "q"), ("a", 1.0, "3"), ("b", 0.0, 1.0), ("b", 0.0, 2.0), ("b", 1.0, 4.0),
    ]  # fmt: skip
    assert [(source, n) for _, source, n in bench.told] == [
        ("f.csv:2", 2), ("f.csv:3", 2), ("f.csv:4", 2), ("f.csv:5", 2), ("f.csv:7", 2), ("f.csv:9", 2),
    ]  # fmt: skip
    details = {r.source: r.detail for r in bench.rejects}
    assert details["f.csv:2"] == "2 cells in a line, expected 3; is the delimiter ',' right?"
    assert details["f.csv:4"] == "'x' is not a time: expected a number since 1970 or RFC 3339 text"
    assert details["f.csv:5"].startswith("not CSV: ")
    assert details["f.csv:7"].startswith("None is not a time")


def test_unusual_lines_that_are_bad_too():
    bench = csv()
    assert bench.read(f'ts,a,b\n{T},a"b\n{T},"x\n') == []
    assert [source for _, source, _ in bench.told] == ["f.csv:2", "f.csv:3"]
    assert bench.read(f'{T},x,{"9" * 400}\n{T},"y",-{"9" * 400}\n{T},z,z\n{T},"","q"\n') != []
    assert [n for *_, n in bench.told] == [1, 1, 1, 1]


def test_too_many_mistakes_are_joined():
    bench = csv()
    bench.read("ts,a\n" + "".join(f"x{i},1\n" for i in range(40)) + f"{T},1\n")
    assert len(bench.rejects) == 16
    assert sum(r.n_samples for r in bench.rejects) == 40
    assert bench.rejects[-1].n_samples == 25


def test_encodings():
    data = "ts,Temperatur °C\n" + f"{T},1\n"
    key = "Temperatur °C"
    assert csv().read(b"\xef\xbb\xbf" + data.encode()) == [(key, 0.0, 1.0)]
    assert csv(encoding="cp1252").read(data.encode("cp1252")) == [(key, 0.0, 1.0)]
    assert csv(encoding="latin-1").read(data.encode("latin-1")) == [(key, 0.0, 1.0)]
    bench = csv()
    assert bench.read(b"ts,a\n%d,\xff\n%d,2\n" % (T, T)) == [("a", 0.0, 2.0)]
    assert bench.told == [("malformed", "f.csv:2", 1)]
    assert bench.read(b"%d,3\n%d,\xff" % (T, T)) == [("a", 0.0, 3.0)]
    assert bench.told == [("malformed", "f.csv:5", 1)]
    bench = csv()
    bench.read(b"ts,a\n%d,\xff\n" % T)
    assert "not utf-8: invalid start byte at byte 11; set encoding" in bench.rejects[0].detail


def test_columns_may_be_named_and_chosen_by_the_rule():
    assert csv(columns=["ts", "a", "b"], only=["b"]).read(f"{T},1,2\n") == [("b", 0.0, 2.0)]
    bench = Bench(path="leon/d/{key}", columns=["a"])
    assert [(key, value) for key, _, value in bench.read("1\n2\n")] == [("a", 1.0), ("a", 2.0)]
    batch = bench.decoder.decode(LineChunk("f", b"3\n\n4\n", 7, ARRIVAL_NS)).batches[0]
    assert batch.ts_ns.tolist() == [ARRIVAL_NS, ARRIVAL_NS + 2]
    assert batch.arrival_ns == ARRIVAL_NS


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("ts,a,a", "line 1 names a column twice"), ("ts,,a", "or not at all"), ("t,a", "no column ts; there are t,a"),
        ("ts;a", "is the delimiter ',' right?"), ('ts,"a', "line 1 names no columns"),
    ],
)  # fmt: skip
def test_a_line_that_names_no_columns_stops_the_source(head, text):
    with pytest.raises(PayloadError, match=text):
        csv().read(f"{head}\n1,2\n")


def test_a_source_is_read_on_from_the_middle():
    bench = csv()
    bench.number = 9
    bench.decoder.learn(f"ts,a\n{T},1\n".encode())
    bench.decoder.learn(b"")
    assert bench.read(f"{T},5\n") == [("a", 0.0, 5.0)]
    assert csv().decoder.learn(b"\n") is None


def test_rows_may_name_their_sensors():
    bench = Bench(time="ts", value="v")
    data = f"ts,sensor,v\n{T},leon/d/a,1.5\n{T},leon/d/s,ran\n{T},leon/e/b,true\n{T},a#,1\n{T},leon/d/n,\n"
    assert bench.read(data) == [("a", 0.0, 1.5), ("b", 0.0, 1), ("s", 0.0, "ran")]
    assert [code for code, *_ in bench.told] == ["bad-path"]
    assert bench.read(f"{T},leon/d/s,{'x' * 1_025}\n{T},leon/d/a,9007199254740993\n") == []
    assert [(source, n) for _, source, n in bench.told] == [("f.csv:7", 1), ("f.csv:8", 1)]
    assert bench.rejects[0].detail.startswith("'leon/d/s' has a text longer than")
    with pytest.raises(PayloadError, match="a column must name the sensors"):
        Bench().read("a,value\n1,2\n")


def test_a_path_that_can_not_be_is_told():
    rule = {"path": "leon/{device}/{key}", "names": {"device": "a/b"}}
    with pytest.raises(PayloadError, match="has other levels than"):
        Bench(**rule)
    with pytest.raises(PayloadError, match="can't name a sensor"):
        Bench(path="leon/{device}/{key}", names={"device": "a#"}).read("a\n1\n")
    assert device_path(compile_paths(LineRule(), (), (), False), {}) == ""


def test_refused_lines_are_decoded_again():
    bench = csv(skip=1)
    bench.read(f"logger\nts,a\n{T},x\n{T},1\n{T},2,3\n")
    assert [value for *_, value in bench.take(bench.decoder.decode(LineChunk("f", b"", 9, 1)))] == []
    bad = csv(skip=1)
    bad.read(f"logger\nts,a\n{T},1\nx,2\n")
    (reject,) = bad.rejects
    mended = Reject(
        reject.code, "x", reject.source, "", reject.raw.replace(b"x,", b"%d," % T), reject.arrival_ns
    )
    assert bad.again(mended) == [("a", 0.0, 2.0)]
    named = csv(columns=["ts", "a"])
    named.read("x,1\n")
    assert named.rejects[0].raw == b"\nx,1"
    assert named.again(named.rejects[0]) == []
    assert named.told == [("bad-time", "f.csv:1", 1)]


# --- times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1700000000", "1700000000001", "1700000000000002", "1700000000000000003"],
         [T * NS, T * NS + 1_000_000, T * NS + 2_000, T * NS + 3]),
        (["1700000000.5", "-1", " 1700000000 "], [T * NS + NS // 2, -NS, T * NS]),
        (["2023-11-14T22:13:20Z", "2023-11-14 23:13:20.000000001+01:00"], [T * NS, T * NS + 1]),
        (["2023-11-14T23:13:20", "2023-11-14 23:13"], [T * NS, (T - 20) * NS]),
        (["2023-11-14T22:13:20Z", "2023-11-14T23:13:20", None, "x"], [T * NS, T * NS, NO_TIME, NO_TIME]),
        (["2023-02-31T00:00Z", "2023-11-14T22:13:20Z"], [NO_TIME, T * NS]),
        (["9300000000", None], [NO_TIME, NO_TIME]),
    ],
)  # fmt: skip
def test_columns_of_times(texts, expected):
    assert read_times(pa.array(texts, pa.string()), TimeReader(timezone="Europe/Madrid")).tolist() == expected


def test_times_of_a_unit():
    times = TimeReader("ms")
    assert times.of_numbers(np.array([5, -5, 2**62, NO_TIME])).tolist() == [
        5_000_000,
        -5_000_000,
        NO_TIME,
        NO_TIME,
    ]


# --- the parts by themselves -------------------------------------------------------------------------


def test_cells_without_anything():
    column = CellColumn(pa.array([None, " "], pa.string()))
    found = column.read(None)
    assert (found.wanted, found.values.null_count) == (None, 2)
    assert column.read(WantedCells("f64")).values.null_count == 2
    text = CsvText(b"", 1, CsvDialect(comment="#"), lambda *_: None)
    assert (text.n_lines, text.holds_values().tolist()) == (0, [])
    assert text.split(text.holds_values(), 2).lines.tolist() == []


# --- JSON and line protocol --------------------------------------------------------------------------


def test_json_of_one_device_and_again():
    bench = Bench("json", path="leon/d/{key}", time="ts", root="data")
    found = bench.read(
        f'{{"ts": {T}, "data": {{"a": 1, "m": {{"x": true}}}}}}\n\n{{"data": {{"a": 2}}}}\nnothing\n'
    )
    assert found == [("a", 0.0, 1.0), ("a", SINCE, 2.0), ("m.x", 0.0, 1)]
    assert bench.told == [("malformed", "f.csv:4", 1)]
    (reject,) = bench.rejects
    mended = Reject(reject.code, "x", reject.source, "", b'{"data": {"a": 7}}', reject.arrival_ns)
    assert bench.again(mended) == [("a", SINCE, 7.0)]


def test_json_that_names_its_sensors_and_again():
    bench = Bench("json")
    data = f'{{"path": "leon/d/a", "ts": {T}, "value": 1.5}}\n{{"device": "leon/d", "b": true}}\n[1]\n'
    bench.number = 5
    found = bench.read(data)
    assert ("a", 0.0, 1.5) in found
    assert bench.told == [("malformed", "f.csv:7", 1)]
    batch = next(
        b
        for b in bench.decoder.decode(LineChunk("f", data.encode(), 5, ARRIVAL_NS)).batches
        if b.dtype == "u8"
    )
    assert batch.ts_ns.tolist() == [ARRIVAL_NS + 1]
    assert bench.again(bench.rejects[0]) == []
    assert bench.told == [("malformed", "f.csv:7", 1)]
    bench.decoder.learn(b"")
    Bench("json", path="leon/d/{key}").decoder.learn(b"")


def test_json_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "headrace.adapters.payloads.json_chunks", None)
    with pytest.raises(PayloadError, match=r"pip install 'headrace\[files\]'"):
        Bench("json")


def test_line_protocol_and_again():
    bench = Bench("lines", path="leon/{host}/{measurement}/{field}", time_unit="s")
    bench.decoder.learn(b"")
    found = bench.read(f'm,host=h a=1,b="x\ny" {T}\nm,host=h a=2\n\nbad\nm,host=h a=t {T}\n')
    assert ("a", 0.0, 1.0) in found
    assert bench.told == [("malformed", "f.csv:5", 1), ("wrong-type", "f.csv:6", 1)]
    assert bench.rejects[0].detail.startswith("expected a blank")
    assert bench.again(bench.rejects[1]) == []
    assert bench.told == [("wrong-type", "f.csv:6", 1)]
    batch = bench.decoder.decode(LineChunk("f", b"m,host=h a=1\nm,host=h a=2\n", 3, ARRIVAL_NS)).batches[0]
    assert batch.ts_ns.tolist() == [ARRIVAL_NS, ARRIVAL_NS + 1]


def test_where_whole_lines_end():
    assert (cut_lines(b"a\nb"), cut_lines(b"ab"), cut_lines(b"")) == (2, 0, 0)
    assert cut_line_protocol(b'm a="x\n') == 0
    assert cut_line_protocol(b'm a=1\nm a="x\ny') == 6
    assert cut_line_protocol(b'm a="x\ny"\nm b=1') == 10
    assert cut_line_protocol(b'm a="x\ny",b="z\n') == 0
    long = b'm a="' + b"x" * 9_000 + b"\n"
    assert cut_line_protocol(long) == len(long)  # it is no text
    assert cut_line_protocol(b'm,t="x v=1\n' * 100) == 1_100  # nor are so many


# --- rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"decimal": ","}, "need another delimiter"), ({"delimiter": "§"}, "ASCII"), ({"columns": ["a", "a"]}, "twice"),
        ({"columns": ["a"], "time": "ts"}, "no 'ts' for the time"),
    ],
)  # fmt: skip
def test_rules_that_can_not_be(rule, text):
    with pytest.raises(InvalidConfig, match=text):
        validate_section(LineRule, rule, "rule")


def test_paths_that_can_not_be():
    levels = ("site", "device", "signal")
    with pytest.raises(ConfigError, match="has 2 levels, expected 3"):
        compile_paths(LineRule(path="leon/{key}"), (), levels, False)
    with pytest.raises(ConfigError, match="must end in a level {key}"):
        compile_paths(LineRule(path="leon/d/a"), (), levels, False)
    with pytest.raises(ConfigError, match="must end in a level {field}"):
        compile_paths(LineRule(path="leon/d/{key}"), (), levels, True)
    assert compile_paths(LineRule(), (), levels, True).naming.group == "{host}/{measurement}"


def test_many_lines_are_what_a_few_are():
    odd = {3: f'{T},"q",1', 9: f'{T},"1,2', 20: f"{T},1\r2,3", 30: "# pause", 40: f'{T},a"b,1', 50: f"{T},1"}
    lines = [odd.get(i, f"{T + i},ran,{i}") for i in range(100)]
    many, few = csv(comment="#"), csv(comment="#")
    found = many.read("ts,s,n\n" + "\n".join(lines) + "\n")
    some = few.read("ts,s,n\n")
    told = []
    for line in lines:
        some += few.read(f"{line}\n")
        told += few.told
    assert found == sorted(some, key=str)
    assert len(found) == 192
    assert many.told == told


def test_another_decoder_goes_on_where_one_is():
    for kind, first, rest in (
        ("csv", b"# x\nts,\xb0C\n1700000000,1\n", b"1700000001,2\n"),
        ("json", b"", b'{"a": 1}\n'),
    ):
        one, other = (
            Bench(
                kind,
                path="leon/d/{key}",
                **({"time": "ts", "skip": 1, "encoding": "cp1252"} if first else {}),
            )
            for _ in "12"
        )
        one.read(first)
        other.decoder.learn(one.decoder.head)
        other.number = 5
        assert len(other.read(rest)) == 1
    assert csv().decoder.head == b""
    assert Bench("lines").decoder.head == b""
    assert Bench("json").decoder.head == b""
