"""Messages of remote write and OTLP as Google's library has them; schemas made here, by the specifications' numbers."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TYPES = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "fixed64": 6, "bool": 8, "string": 9, "message": 11,
    "bytes": 12, "uint32": 13, "enum": 14, "sfixed64": 16, "sint32": 17, "sint64": 18,
}  # fmt: skip

HISTOGRAM_1 = "count_int uint64 1; sum double 3; schema sint32 4; timestamp int64 15"
POINT = "start_time_unix_nano fixed64 2; time_unix_nano fixed64 3"
SCHEMAS = {
    "prometheus": {
        "WriteRequest": "timeseries *TimeSeries 1; metadata *MetricMetadata 3",
        "TimeSeries": "labels *Label 1; samples *Sample 2; exemplars *Exemplar 3; histograms *Histogram 4",
        "Label": "name string 1; value string 2",
        "Sample": "value double 1; timestamp int64 2",
        "Exemplar": "labels *Label 1; value double 2; timestamp int64 3",
        "Histogram": HISTOGRAM_1,
        "MetricMetadata": "type int32 1; metric_family_name string 2; help string 4; unit string 5",
    },
    "io.prometheus.write.v2": {
        "Request": "symbols *string 4; timeseries *TimeSeries 5",
        "TimeSeries": "labels_refs *uint32 1; samples *Sample 2; histograms *Histogram 3; exemplars *Exemplar 4; "
        "metadata Metadata 5; created_timestamp int64 6",
        "Exemplar": "labels_refs *uint32 1; value double 2; timestamp int64 3",
        "Sample": "value double 1; timestamp int64 2; start_timestamp int64 3",
        "Metadata": "type int32 1; help_ref uint32 3; unit_ref uint32 4",
        "Histogram": HISTOGRAM_1,
    },
    "opentelemetry": {
        "Request": "resource_metrics *ResourceMetrics 1",
        "ResourceMetrics": "resource Resource 1; scope_metrics *ScopeMetrics 2; schema_url string 3",
        "Resource": "attributes *KeyValue 1; dropped_attributes_count uint32 2",
        "ScopeMetrics": "scope Scope 1; metrics *Metric 2; schema_url string 3",
        "Scope": "name string 1; version string 2",
        "Metric": "name string 1; description string 2; unit string 3; gauge Numbers 5; sum Sum 7; "
        "histogram Histograms 9; exponential_histogram Exponentials 10; summary Summaries 11; metadata *KeyValue 12",
        "Numbers": "data_points *NumberDataPoint 1",
        "Sum": "data_points *NumberDataPoint 1; aggregation_temporality int32 2; is_monotonic bool 3",
        "Histograms": "data_points *HistogramDataPoint 1; aggregation_temporality int32 2",
        "Exponentials": "data_points *ExponentialDataPoint 1; aggregation_temporality int32 2",
        "Summaries": "data_points *SummaryDataPoint 1",
        "NumberDataPoint": f"{POINT}; as_double ?double 4; exemplars *Sample 5; as_int ?sfixed64 6; attributes *KeyValue 7; "
        "flags uint32 8",
        "Sample": "time_unix_nano fixed64 2; as_double double 3",
        "HistogramDataPoint": f"{POINT}; count fixed64 4; sum ?double 5; bucket_counts *fixed64 6; "
        "explicit_bounds *double 7; attributes *KeyValue 9; flags uint32 10; min ?double 11; max ?double 12",
        "ExponentialDataPoint": f"attributes *KeyValue 1; {POINT}; count fixed64 4; scale sint32 6",
        "SummaryDataPoint": f"{POINT}; count fixed64 4; sum double 5; quantile_values *Quantile 6; attributes *KeyValue 7; "
        "flags uint32 8",
        "Quantile": "quantile double 1; value double 2",
        "KeyValue": "key string 1; value AnyValue 2",
        "AnyValue": "string_value ?string 1; bool_value ?bool 2; int_value ?int64 3; double_value ?double 4; "
        "array_value Values 5; kvlist_value KeyValues 6; bytes_value ?bytes 7",
        "Values": "values *AnyValue 1",
        "KeyValues": "values *KeyValue 1",
        "Response": "partial_success PartialSuccess 1",
        "PartialSuccess": "rejected_data_points int64 1; error_message string 2",
        "Status": "code int32 1; message string 2",
    },
}


def _add(message, text, package):
    field = message.field.add()
    field.name, kind, number = text.split()
    field.number = int(number)
    field.label = 3 if kind.startswith("*") else 1
    is_optional, kind = kind.startswith("?"), kind.lstrip("*?")
    if is_optional:
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add().name = f"_{field.name}"
        field.proto3_optional = True
    if kind in TYPES:
        field.type = TYPES[kind]
    else:
        field.type, field.type_name = 11, f".{package}.{kind}"


def _load():
    pool, out = descriptor_pool.DescriptorPool(), {}
    for package, messages in SCHEMAS.items():
        file = descriptor_pb2.FileDescriptorProto(name=package, package=package, syntax="proto3")
        for name, text in messages.items():
            message = file.message_type.add()
            message.name = name
            for one in text.split(";"):
                _add(message, one, package)
        pool.Add(file)
        for name in messages:
            found = pool.FindMessageTypeByName(f"{package}.{name}")
            out[package.rpartition(".")[2], name] = message_factory.GetMessageClass(found)
    return out


CLASSES = _load()


def new(package, name, **values):
    """A message: package ``prometheus``, ``v2`` or ``opentelemetry``."""
    return CLASSES[package, name](**values)
