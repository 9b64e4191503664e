"""Many short runs of one kind in one: what pcodec learns of them is written once, each run is decodable alone.

A run of 64 to 1,024 values pays dearly for its own description: bins, mode, order of differences. The sensors of a kind
(all oven temperatures) are alike, so one description serves them: a pcodec chunk whose pages are the sensors. Whoever
wants one sensor reads the head and its page. Runs that are not alike lose by it: try, and compare.

A bundle is the low half of the head's XXH64 as uint32, the bytes of the head as a varint, the head, and the pages. The
head is a byte with the version, one with the value type (an index into `headrace.core.layouts.DTYPES`), and as varints the
number of pages and the bytes of pcodec's header and chunk metadata, then these; then integers
(`headrace.codecs.integers`), with their bytes before them: the pages' values and bytes. A page is the low half of its XXH64
as uint32, and pcodec's page.

Source: pcodec's wrapped format (github.com/pcodec/pcodec, docs/format.md).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from headrace.codecs.base import I64, Array, Unfit, type_byte
from headrace.codecs.integers import decode_integers, encode_counts
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint
from headrace.core.errors import CorruptionError
from headrace.core.layouts import DTYPES, numpy_dtype

LEVEL = 8
VALUES_MAX = 1 << 24
"""Values of a bundle: pcodec's own limit for a chunk."""

_VERSION = 1
_SUM = struct.Struct("<I")


def encode_pages(runs: Sequence[Array], level: int = LEVEL) -> bytes:
    """A bundle of ``runs: T[n]`` of one value type.

    Parameters
    ----------
    runs : each of at least one value. level : pcodec's effort, 0 to 12.

    Raises
    ------
    Unfit : no runs, an empty one, different types, or more values than `VALUES_MAX`.

    Examples
    --------
    >>> import numpy as np
    >>> runs = [np.round(np.sin(np.arange(100) / 9 + i), 2) for i in range(50)]
    >>> bundle = PageBundle(encode_pages(runs))
    >>> len(bundle), bool((bundle.run(7) == runs[7]).all())
    (50, True)
    """
    from pcodec import ChunkConfig, PagingSpec
    from pcodec.wrapped import FileCompressor

    sizes = [run.size for run in runs]
    if not sizes or min(sizes) < 1 or sum(sizes) > VALUES_MAX or len({run.dtype for run in runs}) > 1:
        raise Unfit("runs of one type with at least one value each are expected, 2**24 values at most")
    config = ChunkConfig(
        compression_level=level,
        enable_8_bit=runs[0].dtype.itemsize == 1,
        paging_spec=PagingSpec.exact_page_sizes(sizes),
    )
    file = FileCompressor()
    chunk = file.chunk_compressor(np.concatenate(runs), config)
    meta = bytes(file.write_header()) + bytes(chunk.write_meta())
    pages = [_summed(bytes(chunk.write_page(i))) for i in range(len(sizes))]
    head = bytes([_VERSION]) + type_byte(runs[0].dtype) + put_varint(len(sizes)) + put_sized(meta)
    head += put_sized(encode_counts(np.array(sizes))) + put_sized(
        encode_counts(np.array([len(p) for p in pages]))
    )
    return _SUM.pack(_low_half(head)) + put_sized(head) + b"".join(pages)


@dataclass(frozen=True, slots=True)
class _Head:
    dtype: np.dtype[Any]
    meta: bytes
    n_values: I64
    start: I64
    """Where pages begin in the bundle, and where the last one ends."""


class PageBundle:
    """What `encode_pages` wrote: runs by number.

    Parameters
    ----------
    data : the bundle; of its pages only those are looked at that are asked for.

    Raises
    ------
    CorruptionError : its head is not sound.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            self._head = _read_head(data)
            self._chunk = _chunk(self._head)
        except (struct.error, ValueError, IndexError, RuntimeError, TypeError, CorruptionError) as e:
            raise _damaged(str(e)) from e

    def __len__(self) -> int:
        return int(self._head.n_values.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The values' type."""
        return self._head.dtype

    def span(self, i: int) -> tuple[int, int]:
        """First byte of a run's page in the bundle, and the one after it: what has to be read beside the head."""
        return int(self._head.start[i]), int(self._head.start[i + 1])

    def run(self, i: int) -> Array:
        """The values ``T[n]`` of run number `i`. Raises `CorruptionError`."""
        if not 0 <= i < len(self):
            raise IndexError(f"run {i} of {len(self)}")
        first, end = self.span(i)
        page = self._data[first:end]
        if len(page) != end - first or _SUM.unpack_from(page)[0] != _low_half(page[_SUM.size :]):
            raise _damaged(f"the checksum of page {i} is wrong")
        n = int(self._head.n_values[i])
        out = np.empty(n, self.dtype)
        try:
            progress, n_read = self._chunk.read_page_into(page[_SUM.size :], n, out)
        except (RuntimeError, TypeError) as e:
            raise _damaged(str(e)) from e
        if progress.n_processed != n or not progress.finished or n_read != len(page) - _SUM.size:
            raise _damaged(f"page {i} does not hold {n} values")
        return out


def _read_head(data: bytes) -> _Head:
    (checksum,) = _SUM.unpack_from(data)
    size, at = get_varint(data, _SUM.size)
    head = data[at : at + size]
    if len(head) != size or _low_half(head) != checksum:
        raise ValueError("the checksum of its head is wrong")
    if head[0] != _VERSION or head[1] >= len(DTYPES):
        raise ValueError(f"version {head[0]}, type {head[1]}")
    n, place = get_varint(head, 2)
    meta, place = get_sized(head, place)
    values, place = get_sized(head, place)
    sizes, place = get_sized(head, place)
    if n > VALUES_MAX or place != len(head):
        raise ValueError(f"{n} pages")
    n_values, n_bytes = decode_integers(values, n), decode_integers(sizes, n)
    if (
        (n_values < 1).any()
        or (n_values > VALUES_MAX).any()
        or (n_bytes < _SUM.size).any()
        or (n_bytes > len(data)).any()
    ):
        raise ValueError("its pages have sizes that can't be")
    start = at + size + np.cumsum(np.append(0, n_bytes))
    if start[-1] != len(data):
        raise ValueError(f"{len(data):,} bytes, {int(start[-1]):,} expected")
    return _Head(numpy_dtype(DTYPES[head[1]]), meta, n_values, start)


def _chunk(head: _Head) -> Any:
    from pcodec.wrapped import FileDecompressor

    file, n_read = FileDecompressor.new(head.meta)
    name = f"{head.dtype.kind}{8 * head.dtype.itemsize}"
    chunk, more = file.chunk_decompressor(head.meta[n_read:], name)
    if n_read + more != len(head.meta):
        raise ValueError("there are bytes behind its chunk's metadata")
    return chunk


def _summed(page: bytes) -> bytes:
    return _SUM.pack(_low_half(page)) + page


def _low_half(data: bytes) -> int:
    return int(xxhash.xxh64_intdigest(data) & 0xFFFFFFFF)


def _damaged(what: str) -> CorruptionError:
    return CorruptionError(f"a bundle of pages can't be read: {what}; quarantine it and restore it")
