"""Line protocol: the scanner reads what the reference reads, and both read what was written."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.adapters.payloads.lines import BODIES, FLOATS, Lines, leave_all, quoted, rows_of

from headrace.adapters.payloads import line_decoder, line_scanner, line_series
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.line_protocol import LineError, read_line, split_key
from headrace.core.clock import NO_TIME
from headrace.core.layouts import Column, Layout


def bits(rows):
    """Rows that can be compared: floats by their bits."""
    return [(*row[:3], struct.pack("<d", row[3]) if isinstance(row[3], float) else row[3]) for row in rows]


@settings(max_examples=100)
@given(BODIES, st.sampled_from([1, 1_000, 10**9]))
def test_the_scanner_reads_what_the_reference_reads(body, factor):
    fast, slow = Lines(max_keys=12), Lines(max_keys=12, scan=leave_all)
    for _ in range(3):
        rows, rejects = fast.decode(body, factor)
        expected, expected_rejects = slow.decode(body, factor)
        assert bits(rows) == bits(expected)
        assert rejects == expected_rejects
        assert fast.directory.paths == slow.directory.paths
    assert fast.n_left <= slow.n_left


@settings(max_examples=100)
@given(st.lists(FLOATS, min_size=1, max_size=8))
def test_numbers_are_the_nearest_floats(texts):
    lines = Lines()
    body = "".join(f"m v={text} 5\n" for text in texts).encode()
    for _ in range(2):
        rows, rejects = lines.decode(body)
        found = [struct.pack("<d", value) for *_, value in rows]
        assert found == [struct.pack("<d", float(text)) for text in texts]
        assert not rejects


# --- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [
        ("1", "f64", 1.0), ("-1.5e3", "f64", -1500.0), ("1e400", "f64", math.inf), ("7i", "i64", 7), ("-7i", "i64", -7),
        ("+7i", "i64", 7), (f"{2**63 - 1}i", "i64", 2**63 - 1), (f"{-(2**63)}i", "i64", -(2**63)), ("7u", "u64", 7),
        (f"{2**64 - 1}u", "u64", 2**64 - 1), ("t", "u8", 1), ("FALSE", "u8", 0), ("True", "u8", 1), ('"on"', "u32", "on"),
        ('""', "u32", ""), ('"a\nb"', "u32", "a\nb"), (quoted('\\ "x" \\\\'), "u32", '\\ "x" \\\\'), ('"é"', "u32", "é"),
    ],
)  # fmt: skip
def test_values_keep_their_type(text, dtype, value):
    lines = Lines()
    for _ in range(2):
        assert lines.decode(f"m,host=h v={text} 5\n".encode()) == ([("unknown/h/m/v", dtype, 5, value)], [])


@pytest.mark.parametrize(
    ("first", "then", "found"),
    [
        ("1.5", "7i", 7.0), ("1.5", "7u", 7.0), ("1.5", f"{2**53}i", 2.0**53), ("1.5", f"{2**53 + 1}i", None),
        ("1.5", "-7i", -7.0), ("1.5", f"{-(2**53) - 1}i", None), ("1i", "7u", 7), ("1i", f"{2**63}u", None), ("1u", "7i", 7),
        ("1u", "-7i", None), ("1i", "7.0", None), ("1u", "7.0", None), ("t", "1i", None), ("1.0", "t", None),
        ('"a"', "1", None), ("1.0", '"a"', None),
    ],
)  # fmt: skip
def test_a_field_keeps_its_first_type(first, then, found):
    """Whole numbers go to a sensor of another number type where that is exact; the rest is refused."""
    lines = Lines()
    lines.decode(f"m v={first} 5\n".encode())
    for _ in range(3):
        rows, rejects = lines.decode(f"m v={then},w=1 6\n".encode())
        assert [value for path, *_, value in rows if path.endswith("v")] == ([] if found is None else [found])
        assert [value for path, *_, value in rows if path.endswith("w")] == [1.0]
        assert [(reject.code, reject.n_samples) for reject in rejects] == [("wrong-type", 1)] * (
            found is None
        )


def test_declared_types_come_before_the_first_value():
    lines = Lines(types={"v": "f64", "n": "i64"}, units={"v": "degC"})
    rows, rejects = lines.decode(b"m v=7i,n=3u 5\n")
    assert [(dtype, value) for _, dtype, _, value in rows] == [("f64", 7.0), ("i64", 3)]
    assert not rejects
    slot = lines.directory.slot("unknown/unknown/m", "f64")
    assert lines.directory.layout(slot).columns == (Column("v", unit="degC"),)


def test_a_type_that_is_declared_wrong_makes_no_sensor():
    """So that it can be put right, and what was refused meanwhile be taken."""
    lines, body = Lines(types={"v": "bool"}), b"m v=1.5,w=1 5\n"
    for _ in range(2):
        rows, (reject,) = lines.decode(body)
        assert [path for path, *_ in rows] == ["unknown/unknown/m/w"]
        assert (reject.code, reject.n_samples) == ("wrong-type", 1)
        assert reject.detail == "line 1: field 'v' has a float, declared is bool"
    rows, rejects = Lines(known=lines).decode(body)
    assert (len(rows), rejects) == (2, [])


def test_texts_that_can_be_no_value_are_refused():
    lines = Lines()
    body = b'm a="%s",b="x\x00y",c="\xff",d="ok" 5\n' % (b"x" * 1_025)
    rows, (reject,) = lines.decode(body)
    assert [value for *_, value in rows] == ["ok"]
    assert (reject.code, reject.n_samples, reject.detail[:20]) == ("wrong-type", 3, "line 1: a text longe")


def test_texts_of_any_number_of_words():
    lines = Lines()
    body = "".join(f'm v="w{i}" {i}\n' for i in range(300)).encode()
    for _ in range(2):
        rows, _ = lines.decode(body)
        assert [value for *_, value in rows] == [f"w{i}" for i in range(300)]


# --- frames ------------------------------------------------------------------------------------------


def test_lines_that_miss_fields_are_sparse_or_have_gaps():
    lines = Lines()
    lines.decode(b"m a=1,b=2,c=3,d=4,e=5 1\n")
    done = lines.decoder.decode(line_decoder.LineNumbers(b"m e=1,a=2 2\nm b=3 3\n"), 0, 1, 7)
    (batch,) = done.batches
    assert (batch.shape.name, batch.column.tolist(), batch.values.tolist()) == (
        "SPARSE",
        [0, 4, 1],
        [2, 1, 3],
    )
    done = lines.decoder.decode(line_decoder.LineNumbers(b"m e=1,a=2,b=3 2\nm b=3,c=4 3\n"), 0, 1, 7)
    (batch,) = done.batches
    assert (batch.shape.name, batch.n_samples) == ("DENSE", 5)
    assert batch.quality.tolist() == [[0, 0, 192, 192, 0], [192, 0, 0, 192, 192]]
    assert (batch.origin, batch.arrival_ns) == ("lines", 7)


def test_new_fields_in_a_body_keep_the_order_of_frames():
    lines = Lines()
    rows, _ = lines.decode(b"m a=1 1\nm a=2,b=1i 2\nm a=3,c=1.5 3\nm a=4 4\n")
    assert [(ts, value) for path, _, ts, value in rows if path.endswith("/a")] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
    ]
    assert len(rows) == 6


def test_lines_without_a_time_are_left_to_their_arrival():
    lines = Lines()
    for _ in range(2):
        rows, _ = lines.decode(b"m a=1\nm a=2\r\nm a=3 \n\n#m a=4\n")
        assert [ts for _, _, ts, _ in rows] == [NO_TIME] * 3


def test_devices_of_several_widths_come_in_batches_of_their_own():
    lines = Lines()
    body = b"m,host=a x=1,y=2 1\nm,host=b x=1 1\nm,host=a x=3,y=4 2\n"
    for _ in range(2):
        done = lines.decoder.decode(line_decoder.LineNumbers(body), 0, 1, 7)
        assert [(b.shape.name, b.values.tolist()) for b in done.batches] == [
            ("DENSE", [[1.0]]), ("DENSE", [[1.0, 2.0], [3.0, 4.0]]),
        ]  # fmt: skip


def test_escaped_and_plain_spellings_are_one_device():
    lines = Lines("{host}/{measurement}/{field}")
    lines.decode(b"m,host=a,z=1 v=1 1\nm,z=1,host=a v=2 2\n")
    assert lines.directory.paths == ["a/m;z=1"]


# --- bounds ------------------------------------------------------------------------------------------


def test_more_fields_devices_and_sensors_than_allowed_are_refused():
    lines = Lines(max_keys=2, n_max=3, n_sensors_max=4)
    for _ in range(2):
        rows, rejects = lines.decode(
            b"m,host=a x=1,y=2,z=3 1\nm,host=b x=1,y=2 1\nm,host=c x=1 1\nm,host=d x=1,y=2 1\n"
        )
        assert len(rows) == 4
        assert [(r.code, r.n_samples) for r in rejects] == [("unknown-tag", 2), ("unknown-topic", 2)]
    assert lines.directory.n_sensors == 4


def test_what_another_source_fills_is_refused():
    lines = Lines("{host}/{measurement}/{field}")
    lines.directory.define("h/m", Layout("u16", (Column("v"),)), "u16")
    lines.directory.define("h/m/x", Layout("f64", (Column(""),)))
    rows, rejects = lines.decode(b"m,host=h v=1,x=2,y=3 1\n")
    assert [path for path, *_ in rows] == []
    assert [(r.code, r.n_samples) for r in rejects] == [("wrong-type", 3)]
    rows, rejects = lines.decode(b"m,host=h y=3 1\n")
    assert [path for path, *_ in rows] == ["h/m/y"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"m,h=%s v=1 1" % (b"x" * 5_000), "too-large"), (b"m,h=%s v=1 1" % (b"x" * 2_000), "bad-path"),
        (b"m,h=\xff v=1 1", "malformed"), (b"m,h=1,h=2 v=1 1", "malformed"), (b"m \xff=1 1", "malformed"),
        (b"m %s=1 1" % (b"x" * 2_000), "bad-path"), (b"m v=1 9223372036854775807", "bad-time"),
    ],
)  # fmt: skip
def test_names_that_can_be_none_are_refused(line, code):
    rows, (reject,) = Lines().decode(line + b"\nm v=2 2\n", 1_000)
    assert [ts for _, _, ts, _ in rows] == [2_000]
    assert (reject.code, reject.n_samples, reject.raw) == (
        code,
        1,
        line + b"\n",
    )


def test_memory_of_series_begins_anew_at_its_bound(monkeypatch):
    monkeypatch.setattr(line_series, "N_SERIES_MAX", 100)
    lines = Lines()
    for i in range(3):
        body = b"".join(b"m,host=h%d v=%d,n=1i 5\n" % (j, i) for j in range(150))
        rows, _ = lines.decode(body)
        assert [value for path, *_, value in rows if path.endswith("/v")] == [i] * 150
    assert len(lines.directory.paths) == 300


def test_thousands_of_series_are_found_again():
    lines = Lines("{host}/{measurement}/{field}", max_keys=5_000)
    long = b"x" * 50
    body = b"".join(b"m,host=h%d%s f%d%s=1 5\n" % (j % 700, long, j, long) for j in range(1_400))
    assert len(lines.decode(body)[0]) == 1_400
    lines.n_left = 0
    shuffled = b"\n".join(sorted(body.split(b"\n"), key=lambda line: line[::-1]))
    assert len(lines.decode(shuffled)[0]) == 1_400
    assert lines.n_left == 0


def test_a_name_that_finds_no_place_is_left_to_the_reference(monkeypatch):
    """Whoever makes names of one hash makes their own lines slow, and no others."""
    monkeypatch.setattr(line_scanner, "hash_name", lambda data, seed: 0)
    monkeypatch.setattr(
        line_scanner, "name_hash", lambda data, at, end, seed: 0
    )  # where kernels are not compiled
    lines = Lines("{host}/{measurement}/{field}")
    body = b"".join(b"m,host=h%d v=1 5\n" % i for i in range(80))
    body += b"".join(b"m,host=h0 f%d=1 5\n" % i for i in range(80))
    for _ in range(2):
        assert len(lines.decode(body)[0]) == 160


def test_other_keys_from_elsewhere_give_devices_new_slots():
    lines = Lines("{host}/{measurement}/{field}")
    lines.decode(b"m,host=a v=1 5\nm,host=b v=1 5\n")
    group = lines.groups.group("a/m", lines.decoder._series._settings)
    lines.groups.extend(group, {"w": "f64"}, lines.decoder._series._settings)
    done = lines.decoder.decode(line_decoder.LineNumbers(b"m,host=a v=2 6\n"), 0, 1, 7)
    assert done.batches[0].slot.tolist() == [lines.directory.slot("a/m", "f64")]
    lines.decode(b"m,host=c v=1 5\n")


def test_a_line_longer_than_a_slice(monkeypatch):
    monkeypatch.setattr(line_decoder, "SLICE_BYTES", 64)
    lines = Lines(max_keys=1_000)
    long = b"m " + b",".join(b"f%d=%d" % (i, i) for i in range(500)) + b" 5\n"
    for _ in range(2):
        rows, rejects = lines.decode(b"m f0=7 1\n" + long + b"m f1=8 2\n" * 100)
        assert (len(rows), rejects) == (601, [])
    many = b"".join(b"a t 9\n" for _ in range(40))
    assert [r.n_samples for r in lines.decode(many)[1]] == [11, 11, 11, 7]


@pytest.mark.parametrize(
    "names", [("_LINE_BYTES_MIN",), ("_VALUE_BYTES_MIN",), ("_LINE_BYTES_MIN", "_VALUE_BYTES_MIN")]
)
def test_more_lines_or_values_than_there_is_room_for(monkeypatch, names):
    """The scanner leaves to the reference what it has no room for; that makes room."""
    for name in names:
        monkeypatch.setattr(line_decoder, name, 60_000)
    lines = Lines()
    body = b"".join(b"m a=%d,b=2 %d\n" % (i, i) for i in range(50))
    for _ in range(2):
        rows, _ = lines.decode(body)
        assert [value for path, *_, value in rows if path.endswith("/a")] == list(range(50))


@pytest.mark.parametrize(
    ("end", "n_values"), [(b"t", 1), (b"tru", 0), (b"true", 1), (b"", 0), (b"1", 1), (b'"x', 0), (b"1.", 1), (b"1e", 0), (b"-", 0)]
)  # fmt: skip
def test_a_body_that_ends_in_a_line(end, n_values):
    lines = Lines(types={})
    lines.decode(b'm,h=1 v=t 1\nm,h=2 v=1 1\nm,h=3 v="x" 1\n')
    for host in (b"1", b"2", b"3"):
        rows, rejects = lines.decode(b"m,h=%s v=%s" % (host, end))
        assert len(rows) + len(rejects) == 1
        assert len(rows) <= n_values


# --- rejects -----------------------------------------------------------------------------------------


def test_bad_lines_share_a_reject_until_it_is_full():
    body = (
        b"m v=1 1\n"
        + b"bad\n" * 3
        + b"\nm v=x 1\n"
        + b"m v=1 %d\n" % 10**30
        + b"b" * 3_000
        + b"\n"
        + b"c" * 9_000
        + b"\n"
    )
    _, rejects = Lines().decode(body)
    assert [(r.code, r.n_samples, len(r.raw)) for r in rejects] == [
        ("malformed", 4, 20), ("bad-time", 1, 38), ("malformed", 1, 3_001), ("malformed", 1, 9_001),
    ]  # fmt: skip
    assert rejects[0].detail == "line 2: expected a blank and fields after measurement and tags, got ''"
    assert (rejects[0].adapter, rejects[0].source) == ("lines", "lines")
    assert [r.detail[:8] for r in rejects] == ["line 2: ", "line 7: ", "line 8: ", "line 9: "]
    assert [r.arrival_ns for r in rejects] == [8, 13, 14, 15], "a nanosecond a line"


def test_only_a_line_that_was_cut_has_a_mib():
    whole, cut = b"b" * 63 + b"\n", b"c" * 2_000_000
    _, rejects = Lines().decode(whole * 64 + cut)
    assert [r.raw for r in rejects] == [whole * 63, whole, cut[: 1 << 20]]


def test_of_a_line_that_is_taken_only_what_is_refused_is_kept():
    lines = Lines(types=dict.fromkeys(["b", "c d"], "bool"), max_keys=2_000)
    wide = b",".join(b"f%d=1" % i for i in range(1_000))
    body = b'm,h=\\ 1  a=1,b="x\ny",c\\ d=2i 5\r\n\nm b=1,%s 6\nm e=%di,a=2,b=7' % (wide, 2**60 + 1)
    lines.decode(b"m e=1.5 4")
    rows, (reject,) = lines.decode(body)
    assert len(rows) == 1 + 1_000 + 1
    assert reject.raw == b'm,h=\\ 1  b="x\ny",c\\ d=2i 5\r\nm b=1 6\nm e=%di,b=7' % (2**60 + 1)
    assert (reject.code, reject.n_samples, len(body) > 4_096) == ("wrong-type", 5, True)


# --- lines of the past -------------------------------------------------------------------------------


@settings(max_examples=100)
@given(BODIES, st.sampled_from([1, 1_000, 10**9]))
def test_what_is_refused_is_refused_again_and_nothing_else(body, factor):
    lines = Lines(max_keys=12)
    for reject in lines.decode(body, factor)[1]:
        done = lines.decoder.again(reject.raw, factor, reject.arrival_ns)
        assert done.batches == []
        assert {r.code for r in done.rejects} == {reject.code}
        assert sum(r.n_samples for r in done.rejects) == reject.n_samples
        assert done.end == len(reject.raw)


@settings(max_examples=100)
@given(BODIES, st.sampled_from([1, 1_000, 10**9]))
def test_what_is_mended_is_taken_as_if_it_had_never_been_refused(body, factor):
    """All that one decoder takes is what a stricter one takes, and what comes of its rejects."""
    strict, free, arrival_ns = Lines(max_keys=1), Lines(max_keys=12), 3_333_333_333_333_333_333

    def told(rows):
        is_untimed = {NO_TIME, *range(arrival_ns, arrival_ns + 100)}
        return sorted(
            repr((path, dtype, ts not in is_untimed and ts, v)) for path, dtype, ts, v in bits(rows)
        )

    rows, rejects = strict.decode(body, factor, arrival_ns)
    mended, left = Lines(max_keys=12, known=strict), []
    for reject in rejects:
        done = mended.decoder.again(reject.raw, factor, reject.arrival_ns)
        rows += rows_of(mended.directory, done.batches)
        left += done.rejects
    expected, expected_rejects = free.decode(body, factor, arrival_ns)
    assert told(rows) == told(expected)
    assert sum(r.n_samples for r in left) == sum(r.n_samples for r in expected_rejects)


def test_lines_of_the_past_have_the_time_of_their_arrival():
    """The same one whichever of them are taken, so that what is replayed twice is there once."""
    body = b'm a=1\nm b=1\n\nm b=2 9\nm c="x\n"\nm b=3,c=1\n'
    _, (reject,) = Lines(max_keys=1, path="{measurement}/{field}").decode(b"m z=1\n" + body)
    some, more = Lines(max_keys=2, path="{measurement}/{field}"), Lines(path="{measurement}/{field}")
    done = some.decoder.again(reject.raw, 1_000, reject.arrival_ns)
    assert rows_of(some.directory, done.batches) == [
        ("m/a", "f64", 8, 1.0), ("m/b", "f64", 9, 1.0), ("m/b", "f64", 9_000, 2.0), ("m/b", "f64", 13, 3.0),
    ]  # fmt: skip
    assert {batch.arrival_ns for batch in done.batches} == {8}
    assert [(r.code, r.n_samples, r.detail[:7]) for r in done.rejects] == [("unknown-tag", 2, "line 4:")]
    done = more.decoder.again(reject.raw, 1_000, reject.arrival_ns)
    assert [row[:3] for row in rows_of(more.directory, done.batches)] == [
        ("m/a", "f64", 8), ("m/b", "f64", 9), ("m/b", "f64", 9_000), ("m/b", "f64", 13), ("m/c", "u32", 11),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b",a=b v=1", "a measurement"), (b"m,=b v=1", "a tag, name=value"), (b"m,a v=1", "a tag, name=value"),
        (b"m,a= v=1", "the value of a tag"), (b"m,a=b=c v=1", "a blank and fields"), (b"m", "a blank and fields"),
        (b"m v", "a field, name=value"), (b"m =1", "a field, name=value"), (b"m v=", "a value"), (b"m v=1,", "a field"),
        (b'm v="x', "the closing"), (b'm v="x"y', "a time in whole"), (b"m v=1.5.6", "a value"), (b"m v=1e", "a value"),
        (b"m v=1 2 3", "a time in whole"), (b"m v=1 x", "a time in whole"), (b"m v=i", "a value"), (b"m v=-u", "a value"),
        (b"m v=%di" % 2**64, "a value"), (b"m v=%du" % 2**65, "a value"), (b"m v=" + b"1" * 500, "a value"),
        (b"m  v=1,v=2", "a field is there twice"), (b"m v=1\r5", "a time in whole"),
    ],
)  # fmt: skip
def test_mistakes_are_told(line, expected):
    with pytest.raises(LineError, match=expected) as caught:
        read_line(line + b"\nm v=1", 0, 1)
    assert caught.value.end == len(line) + 1
    lines = Lines()
    lines.decode(b"m v=1,w=2 5\nm,a=b v=1 5\n")
    rows, rejects = lines.decode(line + b"\nm v=1 9\n")
    assert [ts for _, _, ts, _ in rows] == [9]
    assert len(rejects) == 1


def test_times_of_absurd_length_are_no_times():
    with pytest.raises(LineError, match="outside the years"):
        read_line(b"m v=1 " + b"9" * 5_000, 0, 1)


def test_keys_are_taken_apart():
    assert split_key(rb"m\ 1\,,a\=b=c\,d,e=\f") == ("m 1,", {"a=b": "c,d", "e": "\\f"})
    with pytest.raises(PayloadError, match="'a' is there twice"):
        split_key(b"m,a=1,a=2")
    with pytest.raises(PayloadError, match="not UTF-8"):
        split_key(b"\xff")


def test_a_long_body_of_blanks_costs_no_memory():
    assert Lines().decode(b" \n\t\r\n# no\n" * 100_000) == ([], [])
    assert Lines(scan=leave_all).decode(b" \n#" * 200_000 + b"\nm v=1 1")[0] == [
        ("unknown/unknown/m/v", "f64", 1, 1.0)
    ]


def test_arrays_of_bits_are_what_they_say():
    lines = Lines()
    rows, _ = lines.decode(b"m a=-0.0,b=18446744073709551615u 5\n" * 2)
    assert struct.pack("<d", rows[0][3]) == struct.pack("<d", -0.0)
    assert rows[2][3] == np.iinfo(np.uint64).max


def test_the_scanner_can_be_made_ready_beforehand():
    line_decoder.warm_lines()


def test_a_line_of_more_fields_than_a_device_can_have(monkeypatch):
    monkeypatch.setattr("headrace.adapters.payloads.line_protocol.FIELDS_MAX", 3)
    rows, (reject,) = Lines().decode(b"m a=1,b=2,c=3,d=4 5\nm a=1 6\n")
    assert [ts for _, _, ts, _ in rows] == [6]
    assert (reject.code, reject.n_samples, reject.detail) == (
        "too-large",
        3,
        "line 1: more than 3 fields in a line",
    )


def test_a_slice_ends_where_many_lines_are_unusual(monkeypatch):
    """The reference takes long; other adapters must have their turn."""
    monkeypatch.setattr(line_decoder, "N_LEFT_MAX", 10)
    done = Lines().decoder.decode(line_decoder.LineNumbers(b"bad\n" * 25), 0, 1, 7)
    assert (done.end, done.n_refused) == (40, 10)
    assert Lines().decode(b"bad\n" * 25)[1][0].n_samples == 10
