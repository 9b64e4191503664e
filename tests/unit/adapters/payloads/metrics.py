"""What tests of metrics share: decoders, the reference alone, and what Google's library reads from the same bytes."""

import json
import struct

import numpy as np
from tests.unit.adapters.payloads.protos import CLASSES

from headrace.adapters.payloads import metric_decoder as module
from headrace.adapters.payloads.base import RuleSettings
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.metric_decoder import MetricDecoder, MetricForm
from headrace.adapters.payloads.metric_scanner import ODD
from headrace.adapters.payloads.tag_paths import compile_tag_path
from headrace.core.clock import NO_TIME
from headrace.core.frames import Shape
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory

ONE, TWO, OTLP = MetricForm.WRITE_1, MetricForm.WRITE_2, MetricForm.OTLP
CLASS_OF = {ONE: ("prometheus", "WriteRequest"), TWO: ("v2", "Request"), OTLP: ("opentelemetry", "Request")}
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
ARRIVAL_NS = 1_700_000_000_000_000_007


def all_odd(data, body, first, last, tables, columns):
    """A scanner that knows nothing: every series and metric is left to the reference."""
    n = min(last - first, len(columns.frame))
    columns.frame[:n] = np.arange(first, first + n)
    columns.series[:n], columns.kind[:n] = -1, ODD
    return n, first + n


class Metrics:
    """A decoder of metrics with all it needs."""

    def __init__(self, path="{host}/{measurement}/{field}", scan=module.scan, **settings):
        limits = {name: settings.pop(name) for name in ("n_max", "n_sensors_max") if name in settings}
        self.directory = SensorDirectory()
        self.groups = DeviceGroups(self.directory, **limits)
        naming = compile_tag_path(path, (), {}, True, True)
        rule = RuleSettings(path="d/{key}", **{"max_keys": 10_000, **settings})
        self.decoder = MetricDecoder("metrics", self.directory, self.groups, naming, rule, scan)

    def decode(self, body, form):
        """(rows, rejects) of a whole body."""
        rows, rejects = [], []
        for part in self.decoder.slices(body, form, ARRIVAL_NS):
            rows += rows_of(self.directory, part.batches)
            rejects += part.rejects
            assert bool(part.rejects) == bool(part.n_refused) == bool(part.first)
        return rows, rejects

    def again(self, rejects, form):
        """What becomes of rejects: (rows, what is still refused)."""
        rows, left = [], []
        for reject in rejects:
            done = self.decoder.again(reject.raw, form, reject.arrival_ns)
            rows += rows_of(self.directory, done.batches)
            left += done.rejects
        return rows, left


def rows_of(directory, batches):
    """(path, ts_ns, value, quality) of every sample, sorted; not-a-number as text."""
    out = []
    for batch in batches:
        batch.check_columns()
        for frame in range(batch.n_frames):
            slot, one = int(batch.slot[frame]), batch.slice(frame, frame + 1)
            columns = range(one.width) if one.shape is Shape.DENSE else one.column.tolist()
            assert list(columns) == sorted(set(columns))
            marks = np.zeros(one.n_values, np.uint8) if one.quality is None else one.quality.reshape(-1)
            for column, value, mark in zip(
                columns, one.values.reshape(-1).tolist(), marks.tolist(), strict=True
            ):
                if mark != Quality.ABSENT:
                    value = value if value == value else "nan"
                    out.append((directory.sensor_path(slot, column), int(one.ts_ns[0]), value, mark))
    return sorted(out, key=repr)


def row(path, ts_ns, value, is_stale=False):
    """What a value becomes."""
    mark = Quality.BAD_COMMUNICATION if is_stale else 0
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        mark = mark or Quality.BAD_NOT_FINITE
        value = value if value == value else "nan"
    return path, ts_ns, value, int(mark)


def is_stale(value):
    return struct.pack("<d", value) == struct.pack("<d", STALE)


def oracle_of_write(body, form):
    """Rows that Google's library reads from remote write whose series all have a name and a host."""
    request = CLASSES[CLASS_OF[form]].FromString(body)
    out = []
    for series in request.timeseries:
        if form is ONE:
            tags = {label.name: label.value for label in series.labels}
        else:
            texts = [request.symbols[ref] for ref in series.labels_refs]
            tags = dict(zip(texts[::2], texts[1::2], strict=True))
        path = path_of(tags.pop("__name__"), tags) + "/value"
        out += [row(path, s.timestamp * 10**6, s.value, is_stale(s.value)) for s in series.samples]
    return sorted(out, key=repr)


def path_of(name, tags):
    more = "".join(f";{key}={tags[key]}" for key in sorted(tags) if key != "host")
    return f"{tags.get('host') or 'unknown'}/{name}{more}"


def said(value):
    """A value of an attribute as a tag has it."""
    kind = next((f.name for f, _ in value.ListFields()), None)
    if kind is None:
        return ""
    if kind == "string_value":
        return value.string_value
    return repr(value.double_value) if kind == "double_value" else json.dumps(getattr(value, kind))


def oracle_of_otlp(body):
    """Rows that Google's library reads from OTLP whose attributes are scalars."""
    out = []
    for resource in CLASSES[CLASS_OF[OTLP]].FromString(body).resource_metrics:
        shared = {a.key: said(a.value) for a in resource.resource.attributes}
        for metric in (m for scope in resource.scope_metrics for m in scope.metrics):
            for kind in ("gauge", "sum", "histogram", "summary"):
                for point in getattr(metric, kind).data_points:
                    tags = {**shared, **{a.key: said(a.value) for a in point.attributes}}
                    path, ts_ns = path_of(metric.name, tags), point.time_unix_nano or NO_TIME
                    out += [
                        row(f"{path}/{field}", ts_ns, value, bool(point.flags & 1))
                        for field, value in fields_of(kind, point)
                    ]
    return sorted(out, key=repr)


def fields_of(kind, point):
    if kind in ("gauge", "sum"):
        if point.HasField("as_int"):
            return [("value", point.as_int)]
        return [("value", point.as_double if point.HasField("as_double") else STALE)]
    if point.flags & 1:
        return [("count", 0)]
    out = [("count", point.count)]
    if kind == "summary":
        return [
            *out,
            ("sum", point.sum),
            *((f"quantile_{q.quantile:.12g}", q.value) for q in point.quantile_values),
        ]
    out += [(name, getattr(point, name)) for name in ("sum", "min", "max") if point.HasField(name)]
    total = 0
    for bound, n in zip([*point.explicit_bounds, float("inf")], point.bucket_counts, strict=False):
        total += n
        out.append((f"bucket_{bound:.12g}", total))
    return out
