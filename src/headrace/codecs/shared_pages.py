"""Many short runs of one kind in one: what pcodec learns of them is written once, each run is decodable alone.

A run of 64 to 1,024 values pays dearly for its own description: bins, mode, order of differences. The sensors of a kind
(all oven temperatures) are alike, so one description serves them: a pcodec chunk whose pages are the sensors. Whoever
wants one sensor reads the head and its page. A run that is smaller by itself, for it is calm or not like the others, is
written so.

Floats that one origin explains (`headrace.codecs.origins`: decimals, steps of a converter) are written as the integers behind
them.

A bundle is the low half of the head's XXH64 as uint32, the bytes of the head as a varint, the head, and the pages. The
head is a byte with the version, one with the value type (an index into `headrace.core.layouts.DTYPES`), and as varints the
number of pages; then parts, each with its bytes before it: the origin, empty where the values are as they were; pcodec's
header and chunk metadata; as integers (`headrace.codecs.integers`) the pages' values, and their bytes. A page is the low half of its XXH64
as uint32, a byte and its bytes: 0 pcodec's page, 1 integers, 2 a body of `headrace.codecs.origin`. Where no page is
pcodec's, its metadata is empty.

Source: pcodec's wrapped format (github.com/pcodec/pcodec, docs/format.md).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from headrace.codecs.base import I64, Array, Unfit, same_bits, type_byte
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.origin import OriginCodec
from headrace.codecs.origin_kernels import BITS
from headrace.codecs.origins import Origin, find_origins
from headrace.codecs.packing import get_sized, get_varint, put_sized, put_varint
from headrace.core.errors import CorruptionError
from headrace.core.layouts import DTYPES, numpy_dtype

LEVEL = 8
VALUES_MAX = 1 << 24
"""Values of a bundle: pcodec's own limit for a chunk."""

_VERSION = 1
_SUM = struct.Struct("<I")
_PCO, _INTEGERS, _FLOATS = (bytes([i]) for i in range(3))


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
    values = np.concatenate(runs)
    origin, numbers = _numbers(values)
    config = ChunkConfig(
        compression_level=level,
        enable_8_bit=numbers.dtype.itemsize == 1,
        paging_spec=PagingSpec.exact_page_sizes(sizes),
    )
    file = FileCompressor()
    chunk = file.chunk_compressor(numbers, config)
    meta = bytes(file.write_header()) + bytes(chunk.write_meta())
    together = [_PCO + bytes(chunk.write_page(i)) for i in range(len(sizes))]
    ends = np.cumsum(sizes)[:-1]
    alone = [
        _alone(run, ints if origin or values.dtype.kind != "f" else None)
        for run, ints in zip(runs, np.split(numbers, ends), strict=True)
    ]
    meta, pages = _smallest_pages(meta, together, alone)
    return _bundle(values.dtype, (origin, meta), sizes, pages)


def _alone(run: Array, numbers: Array | None) -> bytes | None:
    """A page of a run by itself; None where it can't be."""
    if numbers is not None:
        fits = numbers.dtype != np.uint64 or int(numbers.max()) < 2**63
        return _INTEGERS + encode_integers(numbers.astype(np.int64)) if fits else None
    try:
        return _FLOATS + OriginCodec().pack(run)
    except Unfit:
        return None


def _smallest_pages(
    meta: bytes, together: list[bytes], alone: list[bytes | None]
) -> tuple[bytes, list[bytes]]:
    """The metadata, and of each run the shorter page; none of pcodec's where they do not save what its metadata takes."""
    mixed = [
        one if two is None or len(one) <= len(two) else two for one, two in zip(together, alone, strict=True)
    ]
    apart = [page for page in alone if page is not None]
    if len(apart) == len(alone) and sum(map(len, apart)) <= len(meta) + sum(map(len, mixed)):
        return b"", apart
    return meta, mixed


def _bundle(
    dtype: np.dtype[Any], described: tuple[bytes, bytes], sizes: list[int], pages: list[bytes]
) -> bytes:
    summed = [_SUM.pack(_low_half(page)) + page for page in pages]
    tables = [encode_integers(np.array(table)) for table in (sizes, [len(page) for page in summed])]
    head = bytes([_VERSION]) + type_byte(dtype) + put_varint(len(sizes))
    head += b"".join(put_sized(part) for part in (*described, *tables))
    return _SUM.pack(_low_half(head)) + put_sized(head) + b"".join(summed)


def _numbers(values: Array) -> tuple[bytes, Array]:
    """The integers behind floats and what explains them; the values themselves where no origin explains all."""
    if values.dtype.kind != "f":
        return b"", values
    with np.errstate(invalid="ignore"):
        doubles = np.ascontiguousarray(values, np.float64)
        if not same_bits(doubles.astype(values.dtype), values):
            return b"", values
    for origin in find_origins(doubles):
        numbers = origin.numbers(doubles)
        if origin.kind != BITS and same_bits(origin.values(numbers), doubles):
            return origin.to_bytes(), numbers
    return b"", values


@dataclass(frozen=True, slots=True)
class _Head:
    dtype: np.dtype[Any]
    origin: Origin | None
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
        try:
            return self._read(page[_SUM.size :], int(self._head.n_values[i]))
        except (struct.error, ValueError, IndexError, RuntimeError, TypeError, CorruptionError) as e:
            raise _damaged(f"page {i}: {e}") from e

    def _read(self, page: bytes, n: int) -> Array:
        head, kind, body = self._head, page[:1], page[1:]
        if kind == _FLOATS:
            return OriginCodec().unpack(body, n, head.dtype)
        if kind == _INTEGERS and (head.origin is not None or head.dtype.kind != "f"):
            numbers: Array = decode_integers(body, n)
        elif kind == _PCO and self._chunk is not None:
            numbers = np.empty(n, head.dtype if head.origin is None else np.int64)
            progress, n_read = self._chunk.read_page_into(body, n, numbers)
            if progress.n_processed != n or not progress.finished or n_read != len(body):
                raise ValueError(f"it does not hold {n} values")
        else:
            raise ValueError(f"a page of kind {kind!r} can't be here")
        with np.errstate(invalid="ignore", over="ignore"):
            values = numbers if head.origin is None else head.origin.values(numbers)
            return values.astype(head.dtype, copy=False)


def _read_head(data: bytes) -> _Head:
    (checksum,) = _SUM.unpack_from(data)
    size, at = get_varint(data, _SUM.size)
    head = data[at : at + size]
    if len(head) != size or _low_half(head) != checksum:
        raise ValueError("the checksum of its head is wrong")
    if head[0] != _VERSION or head[1] >= len(DTYPES):
        raise ValueError(f"version {head[0]}, type {head[1]}")
    n, place = get_varint(head, 2)
    described, place = get_sized(head, place)
    meta, place = get_sized(head, place)
    values, place = get_sized(head, place)
    sizes, place = get_sized(head, place)
    if n > VALUES_MAX or place != len(head):
        raise ValueError(f"{n} pages")
    n_values, n_bytes = decode_integers(values, n), decode_integers(sizes, n)
    if (
        (n_values < 1).any()
        or (n_values > VALUES_MAX).any()
        or (n_bytes <= _SUM.size).any()
        or (n_bytes > len(data)).any()
    ):
        raise ValueError("its pages have sizes that can't be")
    start = at + size + np.cumsum(np.append(0, n_bytes))
    if start[-1] != len(data):
        raise ValueError(f"{len(data):,} bytes, {int(start[-1]):,} expected")
    origin, size = Origin.from_bytes(described) if described else (None, 0)
    if size != len(described):
        raise ValueError("there are bytes behind its origin")
    return _Head(numpy_dtype(DTYPES[head[1]]), origin, meta, n_values, start)


def _chunk(head: _Head) -> Any:
    from pcodec.wrapped import FileDecompressor

    if not head.meta:
        return None
    file, n_read = FileDecompressor.new(head.meta)
    name = f"{head.dtype.kind}{8 * head.dtype.itemsize}" if head.origin is None else "i64"
    chunk, more = file.chunk_decompressor(head.meta[n_read:], name)
    if n_read + more != len(head.meta):
        raise ValueError("there are bytes behind its chunk's metadata")
    return chunk


def _low_half(data: bytes) -> int:
    return int(xxhash.xxh64_intdigest(data) & 0xFFFFFFFF)


def _damaged(what: str) -> CorruptionError:
    return CorruptionError(f"a bundle of pages can't be read: {what}; quarantine it and restore it")
