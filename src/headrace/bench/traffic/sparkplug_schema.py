"""The messages of Sparkplug B for protobuf, from the field numbers in chapter 6 of the specification (3.0).

The peer of our reader, and the oracle of its tests: it has nothing in common with it but the numbers. It is read by upb,
protobuf's parser in C.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_KIND = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "u32": _KIND.TYPE_UINT32, "u64": _KIND.TYPE_UINT64, "float": _KIND.TYPE_FLOAT, "double": _KIND.TYPE_DOUBLE,
    "bool": _KIND.TYPE_BOOL, "string": _KIND.TYPE_STRING, "bytes": _KIND.TYPE_BYTES,
}  # fmt: skip

# message: [(field, number, type, label)]; labels are o (optional), r (repeated) and v (of the oneof "value").
_MESSAGES = {
    "PropertyValue": [
        ("type", 1, "u32", "o"), ("is_null", 2, "bool", "o"), ("int_value", 3, "u32", "v"),
        ("long_value", 4, "u64", "v"), ("float_value", 5, "float", "v"), ("double_value", 6, "double", "v"),
        ("boolean_value", 7, "bool", "v"), ("string_value", 8, "string", "v"),
        ("propertyset_value", 9, "PropertySet", "v"), ("propertysets_value", 10, "PropertySetList", "v"),
    ],
    "PropertySet": [("keys", 1, "string", "r"), ("values", 2, "PropertyValue", "r")],
    "PropertySetList": [("propertyset", 1, "PropertySet", "r")],
    "MetaData": [
        ("is_multi_part", 1, "bool", "o"), ("content_type", 2, "string", "o"), ("size", 3, "u64", "o"),
        ("seq", 4, "u64", "o"), ("file_name", 5, "string", "o"), ("file_type", 6, "string", "o"),
        ("md5", 7, "string", "o"), ("description", 8, "string", "o"),
    ],
    "DataSetValue": [
        ("int_value", 1, "u32", "v"), ("long_value", 2, "u64", "v"), ("float_value", 3, "float", "v"),
        ("double_value", 4, "double", "v"), ("boolean_value", 5, "bool", "v"), ("string_value", 6, "string", "v"),
    ],
    "Row": [("elements", 1, "DataSetValue", "r")],
    "DataSet": [
        ("num_of_columns", 1, "u64", "o"), ("columns", 2, "string", "r"), ("types", 3, "u32", "r"),
        ("rows", 4, "Row", "r"),
    ],
    "Parameter": [
        ("name", 1, "string", "o"), ("type", 2, "u32", "o"), ("int_value", 3, "u32", "v"),
        ("long_value", 4, "u64", "v"), ("float_value", 5, "float", "v"), ("double_value", 6, "double", "v"),
        ("boolean_value", 7, "bool", "v"), ("string_value", 8, "string", "v"),
    ],
    "Template": [
        ("version", 1, "string", "o"), ("metrics", 2, "Metric", "r"), ("parameters", 3, "Parameter", "r"),
        ("template_ref", 4, "string", "o"), ("is_definition", 5, "bool", "o"),
    ],
    "Metric": [
        ("name", 1, "string", "o"), ("alias", 2, "u64", "o"), ("timestamp", 3, "u64", "o"),
        ("datatype", 4, "u32", "o"), ("is_historical", 5, "bool", "o"), ("is_transient", 6, "bool", "o"),
        ("is_null", 7, "bool", "o"), ("metadata", 8, "MetaData", "o"), ("properties", 9, "PropertySet", "o"),
        ("int_value", 10, "u32", "v"), ("long_value", 11, "u64", "v"), ("float_value", 12, "float", "v"),
        ("double_value", 13, "double", "v"), ("boolean_value", 14, "bool", "v"), ("string_value", 15, "string", "v"),
        ("bytes_value", 16, "bytes", "v"), ("dataset_value", 17, "DataSet", "v"),
        ("template_value", 18, "Template", "v"),
    ],
    "Payload": [
        ("timestamp", 1, "u64", "o"), ("metrics", 2, "Metric", "r"), ("seq", 3, "u64", "o"),
        ("uuid", 4, "string", "o"), ("body", 5, "bytes", "o"),
    ],
}  # fmt: skip


def _build() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="plug", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if any(label == "v" for *_, label in fields):
            message.oneof_decl.add(name="value")
        for field, number, kind, label in fields:
            one = message.field.add(name=field, number=number)
            one.label = _KIND.LABEL_REPEATED if label == "r" else _KIND.LABEL_OPTIONAL
            if label == "v":
                one.oneof_index = 0
            if kind in _SCALARS:
                one.type = _SCALARS[kind]
            else:
                one.type, one.type_name = _KIND.TYPE_MESSAGE, f".plug.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("plug.Payload"))


Payload: Any = _build()
