"""Remote write and OTLP: what the scanner, the reference and Google's library read from the same bytes is the same."""

import collections
import json

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.mutations import any_of
from tests.unit.adapters.payloads.metrics import (
    CLASS_OF,
    ONE,
    OTLP,
    STALE,
    TWO,
    Metrics,
    all_odd,
    oracle_of_otlp,
    oracle_of_write,
)
from tests.unit.adapters.payloads.protos import CLASSES, new

from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.otlp_json import wire_of_json

NAMES = st.sampled_from(["up", "rpm", "level", "a_total", "temperatura_ºC"])
HOSTS = st.sampled_from(["pi", "oven1", "x" * 200])
MORE = st.dictionaries(
    st.sampled_from(["job", "cpu", "z9"]), st.sampled_from(["a", "b", "0", "é"]), max_size=2
)
VALUES = st.floats() | st.sampled_from([0.0, -0.0, STALE, float("nan"), 1e300])
TIMES_MS = st.integers(-(2**40), 2**42) | st.sampled_from([0, 1, -1])


@st.composite
def written(draw, form):
    """A body of remote write."""
    request = CLASSES[CLASS_OF[form]]()
    symbols = {"": 0}
    for _ in range(draw(st.integers(0, 6))):
        series = request.timeseries.add()
        tags = {"__name__": draw(NAMES), "host": draw(HOSTS), **draw(MORE)}
        for name, value in sorted(tags.items()):
            if form is ONE:
                series.labels.add(name=name, value=value)
            else:
                series.labels_refs.extend(symbols.setdefault(text, len(symbols)) for text in (name, value))
        times = draw(st.lists(TIMES_MS, max_size=3, unique=True))
        for ts in times:
            series.samples.add(value=draw(VALUES), timestamp=ts)
        if draw(st.integers(0, 4)) == 0:
            series.exemplars.add(value=1.5, timestamp=3)
    if form is TWO:
        request.symbols.extend(symbols)
    elif draw(st.booleans()):
        request.metadata.add(metric_family_name="up", unit="volts", type=2)
    return request.SerializeToString()


def unique(rows):
    """Whether no sensor has two samples of a time: which of them is first is then not told."""
    return len({one[:2] for one in rows}) == len(rows)


@pytest.mark.parametrize("form", [ONE, TWO])
@settings(max_examples=25)
@given(st.data())
def test_remote_write(form, data):
    bodies = data.draw(st.lists(written(form), min_size=1, max_size=4))
    fast, slow = Metrics(), Metrics(scan=all_odd)
    for body in (*bodies, *bodies):
        expected = oracle_of_write(body, form)
        rows, rejects = fast.decode(body, form)
        assert not rejects
        assert rows == slow.decode(body, form)[0] == expected


SCALARS = st.one_of(
    st.text(max_size=3, alphabet="abé").map(lambda v: {"string_value": v}), st.booleans().map(lambda v: {"bool_value": v}),
    st.integers(-5, 5).map(lambda v: {"int_value": v}), st.just({"double_value": 1.5}), st.just({}),
)  # fmt: skip
FLAGS = st.sampled_from([0, 0, 0, 1])
NANOS = st.integers(0, 2**62) | st.just(0)
COUNTS = st.integers(0, 2**40)


def attributes(draw):
    some = {"host": {"string_value": draw(st.sampled_from(["pi", "oven1"]))}}
    if draw(st.booleans()):
        some["job"] = draw(SCALARS)
    return [{"key": key, "value": value} for key, value in some.items()]


@st.composite
def exported(draw):
    """A body of OTLP; each metric's values are of one kind."""
    request = new("opentelemetry", "Request")
    for number in range(draw(st.integers(0, 2))):
        resource = request.resource_metrics.add()
        if draw(st.booleans()):
            resource.resource.attributes.add(key="site", value={"string_value": f"s{number}"})
        scope = resource.scope_metrics.add()
        scope.scope.name = "lib"
        for kind in draw(st.lists(st.sampled_from(["gauge", "sum", "histogram", "summary"]), max_size=4)):
            is_int = draw(st.booleans())
            metric = scope.metrics.add(name=f"{kind}{is_int:d}", unit=draw(st.sampled_from(["", "s"])))
            for at in draw(st.lists(NANOS, max_size=3, unique=True)):
                points = getattr(metric, kind).data_points
                point = points.add(attributes=attributes(draw), time_unix_nano=at, flags=draw(FLAGS))
                fill(draw, kind, is_int, point)
            if kind in ("sum", "histogram"):
                getattr(metric, kind).aggregation_temporality = 2
    return request.SerializeToString()


def fill(draw, kind, is_int, point):
    if kind in ("gauge", "sum"):
        if is_int:
            point.as_int = draw(st.integers(-(2**63), 2**63 - 1))
        elif not point.flags & 1 or draw(st.booleans()):
            point.as_double = draw(VALUES)
        if draw(st.integers(0, 4)) == 0:
            point.exemplars.add(as_double=1.0)
        return
    point.count = draw(COUNTS)
    if kind == "summary":
        point.sum = 2.5
        for quantile in draw(st.sampled_from([(), (0.5,), (0.5, 0.99)])):
            point.quantile_values.add(quantile=quantile, value=draw(VALUES))
        return
    for name in draw(st.sets(st.sampled_from(["sum", "min", "max"]))):
        setattr(point, name, 1.25)
    bounds = draw(st.sampled_from([(), (0.1, 1.0, 5e-7)]))
    point.explicit_bounds.extend(bounds)
    if bounds or draw(st.booleans()):
        point.bucket_counts.extend(draw(COUNTS) for _ in range(len(bounds) + 1))


@settings(max_examples=30)
@given(st.lists(exported(), min_size=1, max_size=3))
def test_otlp(bodies):
    fast, slow = Metrics(), Metrics(scan=all_odd)
    for body in (*bodies, *bodies):
        rows, rejects = fast.decode(body, OTLP)
        assert not rejects
        expected = oracle_of_otlp(body)
        assert rows == slow.decode(body, OTLP)[0]
        if unique(expected):
            assert rows == expected


@settings(max_examples=25)
@given(exported(), st.booleans())
def test_otlp_as_json(body, keeps_names):
    message = CLASSES[CLASS_OF[OTLP]].FromString(body)
    document = json_format.MessageToDict(message, preserving_proto_field_name=keeps_names)
    found, rejects = Metrics().decode(wire_of_json(json.dumps(document).encode()), OTLP)
    assert (found, rejects) == Metrics().decode(body, OTLP)


# --- hostile bytes -----------------------------------------------------------------------------------


def examples():
    one = new("prometheus", "WriteRequest")
    series = one.timeseries.add()
    series.labels.add(name="__name__", value="up")
    series.labels.add(name="host", value="pi")
    series.samples.add(value=1.5, timestamp=1_700_000_000_000)
    series.histograms.add(sum=3.0, timestamp=5)
    two = new("v2", "Request")
    two.symbols.extend(["", "__name__", "up", "host", "pi", "volts"])
    series = two.timeseries.add(labels_refs=[1, 2, 3, 4])
    series.samples.add(value=1.5, timestamp=1_700_000_000_000, start_timestamp=7)
    series.metadata.unit_ref = 5
    three = new("opentelemetry", "Request")
    scope = three.resource_metrics.add(
        resource={"attributes": [{"key": "host", "value": {"string_value": "pi"}}]}
    )
    metrics = scope.scope_metrics.add().metrics
    point = metrics.add(name="t", unit="s").gauge.data_points.add(time_unix_nano=10**18, as_double=1.5)
    point.attributes.add(key="k", value={"array_value": {"values": [{"int_value": 3}]}})
    metrics.add(name="h").histogram.data_points.add(count=3, bucket_counts=[1, 2], explicit_bounds=[0.5])
    metrics.add(name="e").exponential_histogram.data_points.add(count=3)
    metrics.add(name="s").summary.data_points.add(count=3).quantile_values.add(quantile=0.5, value=2)
    return {ONE: one, TWO: two, OTLP: three}


def counted(rejects):
    """Points by why they were refused."""
    out = collections.Counter()
    for reject in rejects:
        out[reject.code] += reject.n_samples
    return out


@pytest.mark.parametrize("form", [ONE, TWO, OTLP])
def test_hostile_bytes_give_nothing_but_samples_and_rejects(form):
    good = examples()[form].SerializeToString()
    fast = Metrics(n_max=50, max_keys=30)

    @settings(max_examples=100)
    @given(any_of(good))
    def run(body):
        slow = Metrics(scan=all_odd)
        try:
            rows, rejects = fast.decode(body, form)
        except PayloadError:
            with pytest.raises(PayloadError):
                slow.decode(body, form)
            return
        assert all(reject.n_samples >= 1 and reject.code != "internal" for reject in rejects), rejects
        assert all(one[0] for one in rows)
        one, other = slow.decode(body, form), Metrics().decode(body, form)
        assert one[0] == other[0]
        assert counted(one[1]) == counted(other[1])
        assert fast.decode(body, form)[0] == rows

    run()


@settings(max_examples=100)
@given(any_of(json.dumps(json_format.MessageToDict(examples()[OTLP])).encode()))
def test_hostile_json_is_refused_or_read(document):
    try:
        body = wire_of_json(document)
    except PayloadError:
        return
    CLASSES[CLASS_OF[OTLP]].FromString(body)
    Metrics().decode(body, OTLP)
