"""Frame batches as Arrow record batches and back, without copying the columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.core.errors import CorruptionError
from headrace.core.frames import FrameBatch, Shape

_RAGGED = ("column", "value_ts_ns")


def to_arrow(batch: FrameBatch) -> pa.RecordBatch:
    """One row a frame; values as a fixed-size list (dense) or a large list (sparse, wave).

    What is not a column (shape, origin, sequence, arrival, dictionary) is in the schema's metadata.
    """
    fields: dict[str, pa.Array] = {"slot": pa.array(batch.slot), "ts_ns": pa.array(batch.ts_ns)}
    fields["values"] = _nested(batch.values, batch)
    if batch.quality is not None:
        fields["quality"] = _nested(batch.quality, batch)
    for name in _RAGGED:
        if getattr(batch, name) is not None:
            fields[name] = _nested(getattr(batch, name), batch)
    for name in ("rate_num", "rate_den"):
        if getattr(batch, name) is not None:
            fields[name] = pa.array(getattr(batch, name))
    rest = {
        "shape": batch.shape.name, "origin": batch.origin, "sequence": batch.sequence,
        "arrival_ns": batch.arrival_ns, "dictionary": batch.dictionary,
    }  # fmt: skip
    schema = pa.schema(
        [(k, v.type) for k, v in fields.items()], metadata={"headrace.frames": json.dumps(rest)}
    )
    return pa.RecordBatch.from_arrays(list(fields.values()), schema=schema)


def from_arrow(record: pa.RecordBatch) -> FrameBatch:
    """The inverse of `to_arrow`; the batch's columns are views of the record's buffers.

    Raises
    ------
    CorruptionError : the record was not made by `to_arrow`.
    """
    try:
        rest = json.loads((record.schema.metadata or {})[b"headrace.frames"])
        shape = Shape[rest["shape"]]
        found: dict[str, Any] = {n: record.column(n) for n in record.schema.names}
        columns = {n: _flat(c) for n, c in found.items()}
        if shape is Shape.DENSE:
            width = found["values"].type.list_size
            for name in ("values", "quality"):
                if name in columns:
                    columns[name] = columns[name].reshape(-1, width)
        else:
            start = found["values"].offsets.to_numpy()
            columns["start"] = start - start[0]
        dictionary = None if rest["dictionary"] is None else tuple(rest["dictionary"])
        bare = FrameBatch(shape, *(columns.pop(n) for n in ("slot", "ts_ns", "values")))
        batch = bare.with_(
            **columns, dictionary=dictionary, arrival_ns=rest["arrival_ns"], origin=rest["origin"],
            sequence=rest["sequence"],
        )  # fmt: skip
        batch.check_columns()
        return batch
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise CorruptionError(f"not a record batch of frames: {e}") from e


def _nested(array: Any, batch: FrameBatch) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    if batch.shape is Shape.DENSE:
        return pa.FixedSizeListArray.from_arrays(flat, batch.width)
    return pa.LargeListArray.from_arrays(pa.array(batch.start), flat)


def _flat(array: pa.Array) -> Any:
    if isinstance(array, pa.FixedSizeListArray | pa.LargeListArray):
        array = array.flatten()
    return array.to_numpy(zero_copy_only=True)
