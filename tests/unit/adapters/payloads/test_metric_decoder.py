"""Remote write and OTLP as frames: what the scanner leaves aside, what is refused and why, bounds."""

import numpy as np
import pytest
from tests.property.test_metrics import counted
from tests.unit.adapters.payloads.metrics import ARRIVAL_NS, ONE, OTLP, TWO, Metrics, all_odd
from tests.unit.adapters.payloads.protos import new

from headrace.adapters.payloads import hashed_rows, metric_decoder, metric_scanner, metric_series
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.metric_decoder import warm_metrics
from headrace.adapters.payloads.wire import whole, wrap
from headrace.core.clock import NO_TIME
from headrace.core.layouts import Column, Layout
from headrace.core.quality import Quality

MS = 1_000_000
SAMPLE = wrap(2, b"\x09" + np.float64(1.5).tobytes() + b"\x10\x05")


def labels(**tags):
    return b"".join(wrap(1, wrap(1, k.encode()) + wrap(2, v.encode())) for k, v in tags.items())


def series(*parts, name="m", host="h"):
    """A request of remote write with one TimeSeries."""
    return wrap(1, labels(__name__=name, host=host) + b"".join(parts or (SAMPLE,)))


def points(*points, kind=5, name=b"m", head=b""):
    """A request of OTLP with one Metric."""
    metric = wrap(1, name) + head + wrap(kind, b"".join(wrap(1, one) for one in points))
    return wrap(1, wrap(1, attribute("host", b"h", 1)) + wrap(2, wrap(2, metric)))


def attribute(key, value, number):
    return wrap(number, wrap(1, key.encode()) + wrap(2, wrap(1, value)))


def double(value=1.5):
    return b"\x21" + np.float64(value).tobytes()


def integer(value):
    return b"\x31" + np.int64(value).tobytes()


def time_ns(value=5):
    return b"\x19" + np.uint64(value).tobytes()


def decode(form, *bodies, **settings):
    """(rows, rejects) of the last body; the scanner and the reference read all of them alike."""
    fast, slow = Metrics(**settings), Metrics(scan=all_odd, **settings)
    for body in bodies:
        one, other = fast.decode(body, form), slow.decode(body, form)
        assert one[0] == other[0]
        assert counted(one[1]) == counted(other[1])
    return one


# --- remote write ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        (series(wrap(2, b"\x10" + b"\xff" * 10)), "malformed", "an integer of more than 10 bytes"), (series(wrap(2, b"\x18\x80")), "malformed", "it ends inside an integer"),
        (series(wrap(2, b"\x0d" + bytes(4))), "malformed", "field 1 has wire type 5, expected 1"), (series(wrap(2, b"\x12\x00")), "malformed", "field 2 has wire type 2"),
        (series(wrap(2, whole(2, 2**62))), "bad-time", "is outside the years 1678 to 2262"), (series(b"\x10\x01"), "malformed", "field 2 has wire type 0"),
        (series(b"\x20\x01"), "wrong-type", "a native histogram"), (series(b"\x0d" + bytes(4)), "malformed", "field 1 has wire type 5"),
        (series(b"\x08\x01"), "malformed", "field 1 has wire type 0"), (series(SAMPLE, b"\x12\x7f"), "malformed", "it ends inside a field"),
        (series(SAMPLE, b"\x0a\x7f"), "malformed", "it ends inside a field"), (series(SAMPLE, b"\x1a\x7f"), "malformed", "it ends inside a field"),
        (series(wrap(4, b"")), "wrong-type", "a native histogram"), (series(host="h", name=""), "bad-path", "no label __name__"),
        (wrap(1, labels(__name__="m", host="a") + labels(host="b") + SAMPLE), "malformed", "a label is there twice"),
        (wrap(1, labels(__name__="m") + wrap(1, wrap(1, b"\xff")) + SAMPLE), "malformed", "labels are not UTF-8"),
        (wrap(1, labels(__name__="m") + wrap(1, b"\x08\x01") + SAMPLE), "malformed", "field 1 has wire type 0"),
    ],
)  # fmt: skip
def test_series_that_can_not_be_taken(body, code, detail):
    rows, rejects = decode(ONE, series(), body + series())
    assert [one[:3] for one in rows] == [("h/m/value", 5 * MS, 1.5)] * len(rows)
    assert rows
    assert (rejects[0].code, detail in rejects[0].detail) == (code, True), rejects[0].detail
    assert rejects[0].detail.startswith("series 1: ")


def test_samples_and_labels_in_any_order():
    parts = labels(__name__="m"), SAMPLE, labels(host="h"), wrap(9, b"new"), b"\x7a\x00", whole(20, 3)
    rows, rejects = decode(ONE, *[wrap(1, b"".join(parts))] * 3)
    assert (rows, rejects) == ([("h/m/value", 5 * MS, 1.5, 0)], [])
    assert decode(ONE, wrap(1, labels(__name__="m", host="h")), b"") == ([], [])


@pytest.mark.parametrize(
    ("metadata", "unit"),
    [
        (wrap(2, b"m") + wrap(4, b"help") + wrap(5, b"volts"), "volts"), (wrap(2, b"m"), ""), (wrap(2, b"\xff") + wrap(5, b"volts"), ""),
        (b"\x12\x7f", ""),
    ],
)  # fmt: skip
def test_units_of_remote_write_1(metadata, unit):
    metrics = Metrics()
    metrics.decode(wrap(3, metadata) + series(), ONE)
    slot = metrics.directory.find("**").slot[0]
    assert metrics.directory.layout(int(slot)).columns[0].unit == unit


def two(symbols, refs, *parts):
    """A request of remote write 2 with one series."""
    packed = wrap(1, bytes(refs))
    return b"".join(wrap(4, one) for one in symbols) + wrap(5, packed + b"".join(parts or (SAMPLE,)))


SYMBOLS = (b"", b"__name__", b"m", b"host", b"h", b"volts")


@pytest.mark.parametrize(
    ("metadata", "unit"),
    [(b"", ""), (wrap(5, whole(4, 5)), "volts"), (wrap(5, whole(1, 1) + whole(4, 0)), ""), (whole(5, 1), ""), (wrap(5, whole(4, 9)), "")],
)  # fmt: skip
def test_units_of_remote_write_2(metadata, unit):
    metrics = Metrics()
    rows, rejects = metrics.decode(two(SYMBOLS, [1, 2, 3, 4], SAMPLE, metadata), TWO)
    assert (rows, rejects) == ([("h/m/value", 5 * MS, 1.5, 0)], [])
    slot = metrics.directory.find("**").slot[0]
    assert metrics.directory.layout(int(slot)).columns[0].unit == unit


@pytest.mark.parametrize(
    ("body", "n_rows", "code"),
    [
        (two(SYMBOLS, [1, 2, 3, 9]), 0, "malformed"), (two(SYMBOLS, [1, 2, 3]), 0, "malformed"), (two(SYMBOLS, [1, 2, 3, 0x80]), 0, "malformed"),
        (b"".join(wrap(4, one) for one in SYMBOLS) + wrap(5, b"".join(whole(1, ref) for ref in (1, 2, 3, 4)) + SAMPLE), 1, ""),
        (two(SYMBOLS, [1, 2], wrap(1, b"\x03\x04"), SAMPLE), 1, ""), (two(SYMBOLS, [1, 2, 3, 4], wrap(3, b"")), 0, "wrong-type"),
        (two(SYMBOLS, [1, 2, 3, 4], SAMPLE, wrap(1, b"\x03\x04")), 0, "malformed"),
    ],
)  # fmt: skip
def test_references_of_remote_write_2(body, n_rows, code):
    rows, rejects = decode(TWO, two(SYMBOLS, [1, 2, 3, 4]), body)
    assert len(rows) == n_rows
    assert [str(one.code) for one in rejects] == [code] * bool(code)


# --- OTLP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        (points(double() + time_ns(2**63)), "bad-time", "is after the year 2262"), (points(time_ns()), "malformed", "a data point without a value"),
        (points(b"\x20\x01"), "malformed", "field 4 has wire type 0"), (points(double() + b"\x3a\x7f"), "malformed", "it ends inside a field"),
        (points(double() + b"\x40\x80"), "malformed", "it ends inside an integer"), (points(double() + b"\x2a\x7f"), "malformed", "it ends inside a field"),
        (points(double() + whole(7, 1)), "malformed", "field 7 has wire type 0"), (points(double() + wrap(7, wrap(1, b"\xff"))), "malformed", "'utf-8' codec"),
        (points(double(), name=b""), "bad-path", "a metric without a name"), (points(double(), double(), kind=10), "wrong-type", "an exponential histogram"),
        (points(double(), head=b"\x28\x01"), "malformed", "field 5 has wire type 0"),
        (points(double(), head=wrap(2, b"x") + b"\x2a\x02\x0a\x7f"), "malformed", "it ends inside a field"),
        (points(double(), head=wrap(5, whole(1, 1))), "malformed", "field 1 has wire type 0"),
        (points(b"\x21" + bytes(8) + b"\x31" + np.int64(2**62).tobytes() + whole(8, 0) + b"\x79"), "malformed", "it ends inside a field"),
        (points(b"\x21\x00", kind=9), "malformed", "it ends inside a field"), (points(b"\x21" + b"\xff" * 8, kind=9), "wrong-type", "a count of 18,446"),
        (points(wrap(6, bytes(8)) + wrap(7, bytes(16)), kind=9), "malformed", "1 buckets for 2 bounds, expected one more than bounds"),
        (points(wrap(6, bytes(7)), kind=9), "malformed", "field 6 is cut short"), (points(whole(6, 1), kind=9), "malformed", "field 6 has wire type 0"),
        (points(whole(4, 1), kind=11), "malformed", "field 4 has wire type 0"), (points(wrap(6, whole(1, 1)), kind=11), "malformed", "field 1 has wire type 0"),
    ],
)  # fmt: skip
def test_points_that_can_not_be_taken(body, code, detail):
    good = points(double() + time_ns())
    rows, rejects = decode(OTLP, good, body + good)
    assert rows == [("h/m/value", 5, 1.5, 0)]
    assert (rejects[0].code, detail in rejects[0].detail) == (code, True), rejects[0].detail
    assert rejects[0].detail.startswith("metric 1: ")


def test_a_nameless_metric_that_is_cut_is_one_point():
    rows, rejects = decode(OTLP, points(double(), name=b"", head=wrap(5, b"\x0a\x7f")))
    assert (rows, rejects[0].n_samples) == ([], 1)


def test_attributes_of_every_kind():
    values = {
        "bytes": wrap(7, b"\x01\xff"), "list": wrap(5, wrap(1, wrap(1, b"x")) + wrap(1, whole(3, 4)) + wrap(9, b"")),
        "map": wrap(6, wrap(1, wrap(1, b"k") + wrap(2, whole(2, 1)) + wrap(5, b""))), "none": wrap(12, b""),
        "number": b"\x21" + np.float64(0.5).tobytes(),
    }  # fmt: skip
    deep = b""
    for _ in range(20):
        deep = wrap(5, wrap(1, deep))
    own = b"".join(
        wrap(7, wrap(1, key.encode()) + wrap(2, value)) for key, value in {**values, "x": deep}.items()
    )
    ((path, ts_ns, value, _),), rejects = decode(OTLP, points(double() + own))
    assert (ts_ns, value, rejects) == (NO_TIME, 1.5, [])
    tags = dict(part.split("=") for part in path.split("/")[1].split(";")[1:])
    assert tags == {
        "bytes": "01ff", "list": '["x"%2C 4]', "map": '%7B"k": true%7D', "none": "", "number": "0.5",
        "x": "[[[[[[[[null]]]]]]]]",
    }  # fmt: skip


def test_points_in_every_order():
    own = attribute("a", b"1", 7)
    odd = [
        points(own + double() + own.replace(b"a", b"b")),
        points(double(), kind=7, head=wrap(3, b"s")),
        points(double() + whole(8, 2)),
        points(double() + b"\x11" + bytes(8) + wrap(5, b"")),
        wrap(1, wrap(2, wrap(2, wrap(5, wrap(1, double())) + wrap(1, b"m"))) + wrap(1, b"")),
        points(double(), head=wrap(12, b"")),
    ]
    for body in odd:
        rows, rejects = decode(OTLP, body, body)
        assert (len(rows), rejects) == (1, [])
    metric = wrap(1, b"m") + wrap(5, wrap(1, double()) + whole(2, 2) + b"\x18\x01") + wrap(12, b"")
    rows, rejects = decode(OTLP, *[wrap(1, wrap(2, wrap(2, metric)))] * 2)
    assert (len(rows), rejects) == (1, [])
    _, (reject,) = decode(OTLP, wrap(1, wrap(2, wrap(2, b"\x0a\x7f"))))
    assert (reject.code, reject.n_samples) == ("malformed", 1)
    for end in (b"\x10\x80", b"\x62\x7f", b"\x0a\x7f", b"\x20\x01"):
        rows, rejects = decode(
            OTLP, wrap(1, wrap(2, wrap(2, wrap(1, b"m") + wrap(5, wrap(1, double()) + end))))
        )
        assert len(rows) + len(rejects) == 1


def test_stale_points_and_summaries():
    stale = whole(8, 1)
    assert decode(OTLP, points(stale))[0] == [("h/m/value", NO_TIME, "nan", Quality.BAD_COMMUNICATION)]
    assert decode(OTLP, points(stale, kind=11))[0] == [("h/m/count", NO_TIME, 0, Quality.BAD_COMMUNICATION)]
    assert decode(OTLP, points(whole(10, 1), kind=9))[0] == [
        ("h/m/count", NO_TIME, 0, Quality.BAD_COMMUNICATION)
    ]
    half = np.float64(0.5).tobytes()
    quantile = wrap(6, b"\x09" + half + b"\x11" + half + wrap(7, b""))
    rows, _ = decode(OTLP, points(b"\x21" + bytes(8) + b"\x29" + half + quantile, kind=11))
    assert [(path, value) for path, _, value, _ in rows] == [
        ("h/m/count", 0), ("h/m/quantile_0.5", 0.5), ("h/m/sum", 0.5)
    ]  # fmt: skip


def test_histograms_whose_lists_are_packed_or_not():
    half, one = np.float64(0.5).tobytes(), np.int64(3).tobytes()
    total = [("h/m/bucket_0.5", 3), ("h/m/bucket_inf", 6), ("h/m/count", 0), ("h/m/sum", 0.5)]
    for lists in (b"\x39" + half + b"\x31" + one + b"\x31" + one, wrap(7, half) + wrap(6, one * 2)):
        rows, rejects = decode(OTLP, points(b"\x29" + half + lists, kind=9))
        assert ([(path, value) for path, _, value, _ in rows], rejects) == (total, [])


# --- values ------------------------------------------------------------------------------------------


def test_a_type_that_is_declared_wrong_makes_no_sensor():
    metrics = Metrics(types={"value": "bool"})
    for _ in range(2):
        rows, (reject,) = metrics.decode(points(integer(7)), OTLP)
        assert (rows, reject.code, reject.n_samples) == ([], "wrong-type", 1)
        assert reject.detail == "metric 1: 'value' has an integer, declared is bool"
    assert not metrics.directory.find("**").slot.size


def test_integers_that_a_float_can_not_hold_are_refused():
    large = 2**60 + 1
    types = {"types": {"value": "f64"}}
    rows, rejects = decode(OTLP, points(integer(7)), points(integer(7), integer(large)), **types)
    assert [one[2] for one in rows] == [7.0]
    assert rejects[0].detail == (
        f"metric 1: {large} can't be held exactly by a 64-bit float; declare it as i64 under types"
    )
    rows, left = Metrics(types={"value": "i64"}).again(rejects, OTLP)
    assert [one[:3] for one in rows] == [("h/m/value", ARRIVAL_NS, large)]
    assert not left


def test_a_series_keeps_its_type():
    rows, rejects = decode(OTLP, points(double()), points(integer(3)))
    assert [one[2] for one in rows] == [3.0]
    assert not rejects
    rows, rejects = decode(OTLP, points(integer(3)), points(double()))
    assert (rows, rejects[0].detail) == ([], "metric 1: 'value' has a float, its sensor holds i64")


def test_devices_of_several_widths_and_units():
    metrics = Metrics(path="{host}/{field}", units={"a": "bar"})
    body = series(name="a") + series(name="b") + series(name="a", host="other")
    for _ in range(2):
        rows, rejects = metrics.decode(body, ONE)
    assert ([one[0] for one in rows], rejects) == (["h/a", "h/b", "other/a"], [])
    known = metrics.directory.find("**")
    found = {
        metrics.directory.sensor_path(slot, column): metrics.directory.layout(slot).columns[column].unit
        for slot, column in zip(known.slot.tolist(), known.column.tolist(), strict=True)
    }  # fmt: skip
    assert found == {"h/a": "bar", "h/b": "", "other/a": "bar"}


# --- bounds ------------------------------------------------------------------------------------------


def test_more_devices_and_keys_than_allowed():
    rows, rejects = decode(ONE, series() + series(host="i"), n_max=1)
    assert (len(rows), [str(one.code) for one in rejects]) == (1, ["unknown-topic"])
    rows, rejects = decode(ONE, series(name="a") + series(name="b"), path="{host}/{field}", max_keys=1)
    assert (len(rows), [str(one.code) for one in rejects]) == (1, ["unknown-tag"])
    rows, rejects = decode(ONE, series(name="a" * 5_000))
    assert (rows, [str(one.code) for one in rejects]) == ([], ["bad-path"])


def test_a_series_of_more_bytes_than_allowed(monkeypatch):
    monkeypatch.setattr(metric_decoder, "FRAME_BYTES_MAX", 100)
    metrics = Metrics(scan=all_odd)
    rows, (reject,) = metrics.decode(series(wrap(9, bytes(200)), SAMPLE) + series(), ONE)
    assert (len(rows), reject.code, reject.detail.startswith("series 1: 2")) == (1, "too-large", True)


def test_long_names_are_not_kept_for_the_scanner(monkeypatch):
    monkeypatch.setattr(metric_decoder, "KEY_BYTES_MAX", 10)
    for form, body in ((ONE, series()), (TWO, two(SYMBOLS, [1, 2, 3, 4])), (OTLP, points(double()))):
        metrics = Metrics()
        for _ in range(2):
            rows, rejects = metrics.decode(body, form)
            assert (len(rows), rejects) == (1, [])
        assert metrics.decoder._series._names.n == 1


def test_memory_begins_anew_at_its_bound(monkeypatch):
    monkeypatch.setattr(metric_series, "N_SERIES_MAX", 20)
    metrics = Metrics()
    for first in range(0, 60, 10):
        rows, rejects = metrics.decode(b"".join(series(host=f"h{first + i}") for i in range(10)), ONE)
        assert (len(rows), rejects) == (10, [])
        assert metrics.decoder._series._names.n <= 31


def test_names_that_the_scanner_does_not_keep_have_a_bound_too(monkeypatch):
    monkeypatch.setattr(metric_decoder, "KEY_BYTES_MAX", 10)
    monkeypatch.setattr(metric_series, "NAMES_CHARS_MAX", 10_000)
    metrics = Metrics()
    for n in range(20):
        rows, rejects = metrics.decode(series(host=f"h{n}" + "x" * 900), ONE)
        assert (len(rows), rejects) == (1, [])
        names = metrics.decoder._series._series_of
        assert sum(len(text) for name, _ in names for tag in name.tags for text in tag) < 11_000


def test_thousands_of_series_of_long_names():
    """More rows, bytes and devices than there was room for; several slices of a body."""
    metrics = Metrics()
    body = b"".join(series(host=f"{i}" * 8, name="m" * 20) for i in range(2_000))
    for _ in range(2):
        rows, rejects = metrics.decode(body, ONE)
        assert (len({one[0] for one in rows}), rejects) == (2_000, [])
    symbols = [b"", b"__name__", b"m", b"host", *(b"%d" % i for i in range(1_500))]
    body = b"".join(wrap(4, one) for one in symbols) + b"".join(
        wrap(5, wrap(1, b"\x01\x02\x03" + whole(1, 4 + i)[1:]) + SAMPLE) for i in range(1_500)
    )
    for _ in range(2):
        assert len(metrics.decode(body, TWO)[0]) == 1_500


def test_a_body_of_more_than_a_slice(monkeypatch):
    monkeypatch.setattr(metric_decoder, "N_FRAMES", 3)
    metrics = Metrics()
    rows, _ = metrics.decode(b"".join(series(host=f"h{i}") for i in range(10)), ONE)
    assert len(rows) == 10
    body = b"".join(points(double(), name=b"m%d" % i) for i in range(10))
    assert len(metrics.decode(body, OTLP)[0]) == 10


@pytest.mark.parametrize("form", [ONE, TWO, OTLP])
def test_columns_without_room_end_a_slice(monkeypatch, form):
    monkeypatch.setattr(metric_decoder, "N_POINTS", 8)
    body = {
        ONE: series(*[SAMPLE] * 3) * 5, TWO: two(SYMBOLS, [1, 2, 3, 4], *[SAMPLE] * 3) + wrap(5, wrap(1, b"\1\2\3\4") + SAMPLE * 3) * 4,
        OTLP: points(*[double()] * 3) * 5,
    }[form]  # fmt: skip
    metrics = Metrics()
    for _ in range(2):
        assert len(metrics.decode(body, form)[0]) == 15
    large = {
        ONE: series(*[SAMPLE] * 9),
        TWO: two(SYMBOLS, [1, 2, 3, 4], *[SAMPLE] * 9),
        OTLP: points(*[double()] * 9),
    }
    assert len(metrics.decode(large[form], form)[0]) == 9, "more than there is room for: by the reference"


def test_more_of_anything_than_a_body_may_have(monkeypatch):
    for name in ("N_FRAMES_MAX", "N_SYMBOLS_MAX"):
        monkeypatch.setattr(metric_decoder, name, 1_024)
    for form, body in (
        (ONE, series()),
        (ONE, wrap(3, b"")),
        (TWO, wrap(4, b"")),
        (TWO, wrap(5, b"")),
        (OTLP, points(double())),
    ):
        with pytest.raises(PayloadError, match="more than 1,024 .*; send it in parts") as e:
            Metrics().decode(body * 1_025, form)
        assert e.value.code == "too-large"
    metrics = wrap(1, wrap(2, wrap(2, wrap(1, b"m")) * 1_025))
    with pytest.raises(PayloadError, match="more than 1,024 metrics"):
        Metrics().decode(metrics, OTLP)


def test_no_more_units_than_allowed(monkeypatch):
    monkeypatch.setattr(metric_decoder, "_N_UNITS_MAX", 1)
    metrics = Metrics()
    metrics.decode(b"".join(wrap(3, wrap(2, b"m%d" % i) + wrap(5, b"bar")) for i in range(3)), ONE)
    assert metrics.decoder._units == {"m0": "bar"}


def test_slices_end_where_much_is_new(monkeypatch):
    monkeypatch.setattr(metric_decoder, "N_NEW_MAX", 4)
    parts = list(Metrics().decoder.slices(b"".join(series(host=f"h{i}") for i in range(10)), ONE, ARRIVAL_NS))
    assert [sum(b.n_samples for b in part.batches) for part in parts] == [4, 4, 2]


def test_rejects_are_full_at_4_kib():
    body = b"".join(series(wrap(4, b""), host=f"h{i}" * 20) for i in range(200))
    _, rejects = decode(ONE, body)
    assert sum(one.n_samples for one in rejects) == 200
    assert len(rejects) > 2
    assert all(len(one.raw) < 4_096 for one in rejects)


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (ONE, b"\x01"), (ONE, b"\x0a\x7f"), (ONE, b"\x80"), (ONE, b"\x12\x7f"), (TWO, b"\x22\x7f"), (OTLP, b"\x0a\x7f"), (OTLP, wrap(1, b"\x01")),
        (OTLP, wrap(1, b"\x0a\x7f")), (OTLP, wrap(1, b"\x12\x7f")), (OTLP, wrap(1, wrap(2, b"\x01"))), (OTLP, wrap(1, wrap(2, b"\x12\x7f"))),
        (OTLP, wrap(1, wrap(2, b"\x1a\x7f"))), (ONE, b"\x0f"), (ONE, b"\x0d\x00"),
    ],
)  # fmt: skip
def test_bodies_that_are_no_message(form, body):
    with pytest.raises(PayloadError, match=r"not a message of this form: its \w+ can't be told apart"):
        Metrics().decode(body, form)
    ((), (left,)) = Metrics().again([_Kept(body)], form)
    assert (left.code, left.raw) == ("malformed", body)


class _Kept:
    def __init__(self, raw):
        self.raw, self.arrival_ns = raw, 7


@pytest.mark.parametrize(
    ("form", "body"),
    [(ONE, wrap(9, b"x") + b"\x10\x01\x55" + bytes(4) + b"\x51" + bytes(8) + series()), (OTLP, wrap(1, b"\x18\x01" + wrap(2, wrap(1, b"lib") + wrap(2, wrap(1, b"m") + wrap(5, wrap(1, double()))))))],
)  # fmt: skip
def test_fields_that_nobody_knows_are_passed_over(form, body):
    rows, rejects = decode(form, body, body)
    assert (len(rows), rejects) == (1, [])


def test_sensors_that_another_source_fills_are_refused():
    metrics = Metrics(path="{host}/{field}")
    metrics.directory.define("h/m", Layout("f64", (Column(""),)))
    rows, rejects = metrics.decode(series() + series(name="n"), ONE)
    assert [one[0] for one in rows] == ["h/n"]
    assert [(str(one.code), one.n_samples) for one in rejects] == [("bad-path", 1)], rejects


# --- again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [ONE, TWO, OTLP])
def test_what_was_refused_is_taken_when_there_is_room(form):
    body = {
        ONE: series() + series(host="i"), TWO: two((*SYMBOLS, b"i"), [1, 2, 3, 4]) + wrap(5, wrap(1, b"\1\2\3\6") + SAMPLE),
        OTLP: points(double() + time_ns() + attribute("host", b"h", 7)) + points(double() + attribute("host", b"i", 7)),
    }[form]  # fmt: skip
    rows, rejects = decode(form, body, n_max=1)
    assert len(rows) == 1
    kept_form = ONE if form is TWO else form  # what is kept of version 2 is version 1: it needs no symbols
    more, left = Metrics().again(rejects, kept_form)
    assert ([one[:3] for one in more], left) == (
        [("i/m/value", ARRIVAL_NS if form is OTLP else 5 * MS, 1.5)],
        [],
    )


def test_crowded_hash_tables_leave_names_to_the_reference(monkeypatch):
    """As far as kernels see it: compiled ones keep the bound they were compiled with."""
    for module in (hashed_rows, metric_scanner):
        monkeypatch.setattr(module, "N_PROBES_MAX", 1)
    metrics = Metrics()
    body = b"".join(series(host=f"h{i}") for i in range(300))
    order = np.random.default_rng(0).permutation(300)
    shuffled = b"".join(series(host=f"h{i}") for i in order)
    for one in (body, shuffled, shuffled):
        assert len(metrics.decode(one, ONE)[0]) == 300


def test_a_slot_that_another_source_widens_is_asked_again():
    metrics = Metrics()
    metrics.decode(series(), ONE)
    metrics.groups.version += 1
    rows, rejects = metrics.decode(series(), ONE)
    assert (len(rows), rejects) == (1, [])


def test_the_scanner_can_be_made_ready_beforehand():
    warm_metrics()
    assert new("prometheus", "WriteRequest").SerializeToString() == b""
