"""What a segment's check makes of rows whose values are not what was measured."""

import numpy as np
import pyarrow as pa
import pytest

from headrace.store.segment import open_segment, write_segment
from headrace.store.verify import Verification, verify_segment_rows
from headrace.store.warm import encode_chunk
from headrace.store.warm_rows import WARM_SCHEMA

DAY = 86_400 * 1_000_000_000
NOON = 20_000 * DAY + DAY // 2


def lossy(rig, plant, eps, bound):
    """A warm segment whose one row of floats was encoded within `eps`, and says `bound`."""
    values = np.random.default_rng(0).normal(size=200)
    batch = plant.frames(plant.lone, 0, values)
    rig.add(batch)
    rig.flush()
    rig.compact()
    (source,) = rig.store.refresh().sources(NOON - DAY, NOON + DAY)
    (row,) = open_segment(rig.disk, source.info.name).table().to_pylist()
    chunk = encode_chunk(batch.ts_ns, values, None, eps)
    assert chunk.bound == eps
    row |= {
        "payload": chunk.payload, "n_bytes": len(chunk.payload), "time_codec": chunk.time_codec,
        "value_codec": chunk.value_codec, "bound": bound, "max_error": None, "rmse": None,
    }  # fmt: skip
    written = write_segment(source.info.name, [pa.Table.from_pylist([row], WARM_SCHEMA)])
    rig.disk.replace(source.info.name, written.data)
    found = Verification()
    verify_segment_rows(rig.disk, written.info, found)
    return [harm.sentence for harm in found.harms if "what its name says" not in harm.sentence]


def test_a_lossy_row_is_sound_though_its_header_is_of_what_was_measured(rig, plant):
    assert lossy(rig, plant, 0.125, 0.125) == []


@pytest.mark.parametrize("bound", [1e-5, 0.0])
def test_one_that_passes_its_bound_is_not(rig, plant, bound):
    (sentence,) = lossy(rig, plant, 0.125, bound)
    assert "its min is" in sentence
