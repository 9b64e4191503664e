"""Compile every codec kernel, or load it from the cache: so that the first live batch waits for nothing."""

from __future__ import annotations

import numpy as np

from headrace.codecs.block import decode_block, encode_blocks
from headrace.codecs.rice_delta import RiceDeltaCodec


def warm_kernels() -> None:
    """Encode and decode a few values by every kernel. All value types share them.

    Cost: about 0.15 s of CPU from the cache (beside Numba's own start), 15 s without one.
    """
    values = np.arange(8, dtype=np.uint16)
    blocks = encode_blocks(values.reshape(4, 2), np.arange(4), None, np.arange(4), np.array([0, 4]))
    decode_block(blocks.payload, values.dtype)
    codec = RiceDeltaCodec()
    codec.decode(codec.encode(values), values.size, values.dtype)
