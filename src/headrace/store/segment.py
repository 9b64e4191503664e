"""Segments: immutable Parquet files of encoded rows.

A file is written once, whole. Row groups hold the rows of one or several shards; their statistics (shard,
time, path) prune. Headers are compressed; payloads are not, and each row group holds them in one page, one behind the
other at its end (DELTA_LENGTH_BYTE_ARRAY; earlier releases wrote PLAIN, each behind its length), so that a reader who
knows the headers slices a payload straight out of the mapped file. Where the file is far away it is read by ranges: the
footer, the headers of a row group in one piece, the payloads that are wanted. Pages carry a CRC, payloads their own
checksums, and the footer's checksum is in the commit or manifest that names the file.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from headrace.core.disk import Buffer, Disk, MappedFile, ReadFile
from headrace.core.errors import CorruptionError, NotFound
from headrace.core.layouts import DTYPES
from headrace.store.commits import SegmentInfo
from headrace.store.grouping import DAY_NS
from headrace.store.known_columns import names_of, needed_for, same_of, with_known, without_known
from headrace.store.schema import HEADER, KINDS, SIBLINGS, STATISTICS, VERSION, WORDS

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

_ROWS_MAX = 8_192
_GROUP_BYTES_MAX = 8 << 20
_PAGE_BYTES = 1 << 30  # one page for each row group's payloads
_PAYLOADS = "DELTA_LENGTH_BYTE_ARRAY"
_ENCODINGS = dict.fromkeys(("t_min", "t_max", "n_bytes"), "DELTA_BINARY_PACKED") | dict.fromkeys(
    ("sum", "m2"), "BYTE_STREAM_SPLIT"
)
"""Of header columns that this makes smaller: a third of a warm row's header."""
_SPLIT_IF_FEW = ("t_min", "t_max", "n_bytes", "max", "first", "last", "sum", "m2")

_FOOTER_TAIL = 8
_FOOTER_IN_MEMORY = 4
_PAGE_HEADER_MAX = 256
_ABOUT, _SAME = "headrace.segment", "headrace.same"
_FEW_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class SegmentBytes:
    """A segment that is not on disk yet."""

    info: SegmentInfo
    data: memoryview


def write_segment(
    name: str, tables: Sequence[pa.Table], about: Mapping[str, Any] | None = None, level: int = 13
) -> SegmentBytes:
    """Encode rows as Parquet.

    Parameters
    ----------
    name : where it will be. tables : rows, shard by shard. about : what the file says of itself, JSON-ready.
    level : zstd's, of the headers.
    """
    times = [np.concatenate([_int64(t[c]) for t in tables]) for c in ("t_min", "t_max")]
    n_samples = sum(int(_numbers(t["n_samples"]).sum()) for t in tables)
    tables, same = without_known(tables)
    schema = tables[0].schema
    sink = pa.BufferOutputStream()
    coded, encodings = _encodings(schema.names, len(times[0]))
    writer = pq.ParquetWriter(
        sink, schema, compression={n: "none" if n == "payload" else "zstd" for n in schema.names},
        compression_level={n: level for n in schema.names if n != "payload"},
        use_dictionary=coded, write_statistics=[n for n in schema.names if n in STATISTICS],
        data_page_size=_PAGE_BYTES, write_page_checksum=True, store_schema=False,
        column_encoding=encodings | {"payload": _PAYLOADS},
    )  # fmt: skip
    with writer:
        for group in _row_groups(tables):
            writer.write_table(group, row_group_size=len(group))
        said = {_SAME: json.dumps(same, separators=(",", ":"))} if same else {}
        writer.add_key_value_metadata(
            {"headrace.version": VERSION.decode(), _ABOUT: json.dumps(dict(about or {}))} | said
        )
    data = memoryview(sink.getvalue())
    info = SegmentInfo(
        name, len(data), sum(len(t) for t in tables), n_samples, int(times[0].min()), int(times[1].max()),
        tuple(np.unique(times[0] // DAY_NS).tolist()), _footer_digest(MappedFile(data)),
    )  # fmt: skip
    return SegmentBytes(info, data)


def _encodings(names: Sequence[str], n_rows: int) -> tuple[list[str], dict[str, str]]:
    """Which columns are dictionaries, and how others are encoded, as measured.

    In few rows a dictionary's own page costs more than it saves, and zstd finds the same times of many sensors.
    """
    if n_rows < _FEW_ROWS:
        return [], {n: "BYTE_STREAM_SPLIT" for n in _SPLIT_IF_FEW if n in names}
    coded = [n for n in names if n in WORDS or n in ("shard", "column", "layout", "seq", "arrival")]
    return coded, {n: e for n, e in _ENCODINGS.items() if n in names}


def _row_groups(tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Rows in runs of bounded size; small shards share one."""
    n_bytes = sum(int(np.sum(_numbers(t["n_bytes"]), dtype=np.int64)) for t in tables)
    if n_bytes <= _GROUP_BYTES_MAX and sum(map(len, tables)) <= _ROWS_MAX:  # as in most flushes
        yield pa.concat_tables(tables).combine_chunks()
        return
    waiting: list[pa.Table] = []
    for table in tables:
        size = np.cumsum(_numbers(table["n_bytes"]), dtype=np.int64)
        cuts = row_cuts(table)
        first = 0
        while first < len(table):
            n_waiting = sum(len(t) for t in waiting)
            bytes_waiting = sum(int(_numbers(t["n_bytes"]).sum()) for t in waiting)
            before = int(size[first - 1]) if first else 0
            room = _GROUP_BYTES_MAX - bytes_waiting
            last = min(int(np.searchsorted(size, before + room, "right")), first + _ROWS_MAX - n_waiting)
            last = int(cuts[np.searchsorted(cuts, last, "right") - 1])
            if last <= first and not waiting:
                last = int(cuts[np.searchsorted(cuts, first, "right")])  # what can't be parted
            if last > first:
                waiting.append(table.slice(first, last - first))
                first = last
            if first < len(table):
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def row_cuts(table: pa.Table) -> I64:
    """Ascending: before which rows a row group may end, so that none is parted from a row that has its times, or values it needs."""
    row = np.arange(len(table) + 1)
    first, last = row.copy(), row.copy()
    for name, sign in (("times_back", -1), *((name, 1) for name in SIBLINGS)):
        if name in table.column_names:
            other = row[:-1] + sign * _numbers(table[name].fill_null(0)).astype(np.int64)
            np.minimum(first[:-1], other, out=first[:-1])
            np.maximum(last[:-1], other, out=last[:-1])
    before = np.append(-1, np.maximum.accumulate(last[:-1]))
    return np.flatnonzero((np.minimum.accumulate(first[::-1])[::-1] >= row) & (before < row))


def _numbers(column: Any) -> Array:
    return np.asarray(column.to_numpy())


def _int64(column: Any) -> I64:
    return np.asarray(column.cast(pa.int64()).to_numpy())


def _footer_digest(file: ReadFile) -> str:
    """xxh3 of the Parquet footer. Raises `ValueError` where there is none."""
    size = file.size_bytes
    tail = bytes(file.read(max(0, size - _FOOTER_TAIL), size))
    length = int.from_bytes(tail[:4], "little") if size >= _FOOTER_TAIL else 0
    if tail[-4:] != b"PAR1" or not 0 < length <= size - _FOOTER_TAIL:
        raise ValueError("it does not end in a Parquet footer")
    return xxhash.xxh3_64_hexdigest(file.read(size - _FOOTER_TAIL - length, size))


REFERENCE = np.dtype([("offset", "<i8"), ("n_bytes", "<u4"), ("codec", "<u2"), ("dtype", "u1")])
"""A row whose values others are predicted from: where its payload is, and its codec and type as `RowHeaders` has them; no bytes for none."""

RARE = ("dictionary", "times_offset", "times_bytes", "references")
"""Fields of `RowHeaders` that are None where no row has any."""


@dataclass(frozen=True, slots=True, eq=False)
class RowHeaders:
    """The headers of some rows of one segment as parallel arrays; see `headrace.store.schema`.

    ``kind`` and ``dtype`` are indices in `KINDS` and `DTYPES`; ``codec`` is an index in `codecs`, pairs of time
    and value codec; ``offset`` is where the payload starts in the file. ``statistics`` are the columns of warm
    rows: min, max, sum, first, last, m2, raw_sum, sum_low. ``dictionary`` is None where no row has one. ``times_offset`` and
    ``times_bytes`` say where the payload is that has a row's times; None where each has its own. ``references``:
    `REFERENCE`[n, 2], of the rows whose values each is predicted from; None where none is.
    """

    group: npt.NDArray[np.uint64]
    layout: npt.NDArray[np.uint64]
    column: npt.NDArray[np.int32]
    kind: npt.NDArray[np.uint8]
    dtype: npt.NDArray[np.uint8]
    t_min: I64
    t_max: I64
    n_frames: npt.NDArray[np.uint32]
    n_samples: npt.NDArray[np.uint32]
    count: npt.NDArray[np.uint32]
    seq: I64
    codec: npt.NDArray[np.uint16]
    codecs: tuple[tuple[str, str], ...]
    offset: I64
    n_bytes: npt.NDArray[np.uint32]
    statistics: dict[str, Array]
    dictionary: npt.NDArray[np.object_] | None
    times_offset: I64 | None
    times_bytes: npt.NDArray[np.uint32] | None
    references: Array | None

    def __len__(self) -> int:
        return len(self.group)

    def take(self, index: Array | slice) -> RowHeaders:
        """A copy of the rows at `index`."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        taken: dict[str, Any] = {n: None if a is None else _copied(a, index) for n, a in arrays.items()}
        statistics = {name: _copied(values, index) for name, values in self.statistics.items()}
        return RowHeaders(**taken, codecs=self.codecs, statistics=statistics)

    @property
    def size_bytes(self) -> int:
        """Memory that the headers take."""
        arrays = [getattr(self, n) for n in self.__slots__ if n not in ("codecs", "statistics", "dictionary")]
        return sum(a.nbytes for a in (*arrays, *self.statistics.values()) if a is not None)


_ARRAYS = tuple(name for name in RowHeaders.__slots__ if name not in ("codecs", "statistics"))


def _copied(array: Array, index: Array | slice) -> Array:
    return array[index].copy() if isinstance(index, slice) else array[index]


class SegmentFile:
    """An open segment, for any thread: pyarrow's reader takes one at a time, and is kept from taking two.

    Parameters
    ----------
    data : its bytes, where they are at hand.

    Raises
    ------
    CorruptionError : it is not the file that `info` describes. NotFound : it is gone.
    """

    def __init__(self, disk: Disk, info: SegmentInfo, data: memoryview | None = None) -> None:
        self.info = info
        self._reading = threading.Lock()
        self._bytes = disk.open(info.name, info.size_bytes) if data is None else MappedFile(data)
        try:
            self._check()
            metadata = pq.read_metadata(_arrow_file(self._bytes))
            self._written = metadata.schema.to_arrow_schema().names
            self._file = pq.ParquetFile(
                _arrow_file(self._bytes), metadata=metadata,
                read_dictionary=[n for n in WORDS if n in self._written], page_checksum_verification=True,
            )  # fmt: skip
            self._same = same_of(self.metadata.get(_SAME.encode(), b"{}"))
            self._names = names_of(self._written, self._same)
            if self.metadata.get(b"headrace.version") != VERSION:
                raise ValueError(f"its format is not version {VERSION.decode()}; a newer release wrote it")
        except (ValueError, OSError, pa.ArrowException) as e:
            raise self.damaged(str(e)) from e

    def _check(self) -> None:
        info, size_bytes = self.info, self._bytes.size_bytes
        if size_bytes != info.size_bytes or _footer_digest(self._bytes) != info.footer:
            raise ValueError(
                f"expected {info.size_bytes:,} bytes with footer {info.footer}, got {size_bytes:,}"
            )

    def damaged(self, why: str) -> CorruptionError:
        """The error that says which segment is damaged, and how."""
        return CorruptionError(f"segment {self.info.name} is damaged: {why}; restore it from a backup")

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """Key-value metadata of the file."""
        return dict(self._file.metadata.metadata or {})

    @property
    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        found: dict[str, Any] = json.loads(self.metadata[_ABOUT.encode()])
        return found

    @cached_property
    def footer_bytes(self) -> int:
        """About the memory that the parsed footer takes: some times its size in the file."""
        return _FOOTER_IN_MEMORY * int(self._file.metadata.serialized_size)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that it gives."""
        return self._names

    @property
    def n_groups(self) -> int:
        """Row groups."""
        return int(self._file.num_row_groups)

    @cached_property
    def spans(self) -> tuple[I64, I64]:
        """Earliest and latest time of each row group."""
        names = [self._file.metadata.schema.column(i).path for i in range(len(self._file.metadata.schema))]
        place = [names.index("t_min"), names.index("t_max")]
        out = np.empty((2, self.n_groups), np.int64)
        for g in range(self.n_groups):
            group = self._file.metadata.row_group(g)
            out[0, g] = _stat_ns(group.column(place[0]).statistics, "min_raw", self.info.t_min_ns)
            out[1, g] = _stat_ns(group.column(place[1]).statistics, "max_raw", self.info.t_max_ns)
        return out[0], out[1]

    def headers(self, group: int) -> RowHeaders:
        """Headers of one row group."""
        try:
            wanted = [n for n in HEADER if n in self._names and n not in _UNUSED]
            return self._parse(group, self._read_group(group, wanted))
        except (ValueError, KeyError, OSError, pa.ArrowException) as e:
            raise self.damaged(f"row group {group}: {e}") from e

    def row_group(self, group: int, columns: Sequence[str]) -> pa.Table | None:
        """Some columns of one row group; None where the file has not all of them."""
        if not set(columns) <= set(self._names):
            return None
        try:
            return self._read_group(group, list(columns))
        except (OSError, pa.ArrowException) as e:
            raise self.damaged(f"row group {group}: {e}") from e

    def _read_group(self, group: int, columns: list[str]) -> pa.Table:
        needed = needed_for(columns, self._written, self._same)
        with self._reading:
            if not isinstance(self._bytes, MappedFile):
                self._bytes.read(*self._extent(group, needed))  # all of them at once, not one by one
            table = self._file.read_row_group(group, columns=needed, use_threads=False)
        return with_known(table, columns, self._same)

    def _extent(self, group: int, columns: list[str]) -> tuple[int, int]:
        """From the first byte of some columns to their last, and some more: where the payloads begin."""
        metadata = self._file.metadata.row_group(group)
        chunks = [metadata.column(self._written.index(name)) for name in columns]
        first = min(_start(chunk) for chunk in chunks)
        last = max(_start(chunk) + chunk.total_compressed_size for chunk in chunks)
        return first, min(last + _PAGE_HEADER_MAX, self._bytes.size_bytes)

    def _parse(self, group: int, table: pa.Table) -> RowHeaders:
        n_bytes = _numbers(table["n_bytes"]).astype(np.uint32)
        codecs, codec = _codec_pairs(table)
        offset = self._offsets(group, n_bytes)
        times_offset, times_bytes = _time_places(table, offset, n_bytes)
        dtype = _codes(table["dtype"], DTYPES)
        has_words = "dictionary" in table.column_names and table["dictionary"].null_count < len(table)
        return RowHeaders(
            group=_numbers(table["group"]), layout=_numbers(table["layout"]), column=_numbers(table["column"]),
            kind=_codes(table["kind"], KINDS), dtype=dtype,
            t_min=_int64(table["t_min"]), t_max=_int64(table["t_max"]),
            n_frames=_numbers(table["n_frames"]), n_samples=_numbers(table["n_samples"]),
            count=_numbers(table["count"]), seq=_numbers(table["seq"]), codec=codec, codecs=codecs,
            offset=offset, n_bytes=n_bytes, times_offset=times_offset, times_bytes=times_bytes,
            references=_references(table, (offset, n_bytes, codec, dtype)),
            statistics={n: _nullable(table[n]) for n in _STATISTICS if n in table.column_names},
            dictionary=_word_lists(table["dictionary"]) if has_words else None,
        )  # fmt: skip

    def _offsets(self, group: int, n_bytes: npt.NDArray[np.uint32]) -> I64:
        """Where each payload starts: the page's values end where the column chunk does."""
        metadata = self._file.metadata.row_group(group)
        chunk = metadata.column(metadata.num_columns - 1)
        sizes = n_bytes.astype(np.int64)
        end = chunk.data_page_offset + chunk.total_compressed_size
        if _PAYLOADS in chunk.encodings:
            starts: I64 = end - int(sizes.sum()) + np.cumsum(sizes) - sizes
            if starts[0] < chunk.data_page_offset:
                raise ValueError("payloads are longer than their page")
            return starts
        sizes += 4  # each is behind its length
        starts = end - int(sizes.sum()) + np.cumsum(sizes) - sizes
        is_near = isinstance(self._bytes, MappedFile)  # else the last row is not fetched just to be looked at
        for row in (0, len(sizes) - 1) if is_near else (0,):
            at = int(starts[row])
            if int.from_bytes(self._bytes.read(at, at + 4), "little") != n_bytes[row]:
                raise ValueError("payloads are not where the headers say")
        return starts + 4

    def payloads(self, offset: I64, n_bytes: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint8], I64]:
        """Payloads one behind the other, and where each starts: uint8[n], int64[G + 1]."""
        return joined_payloads([(self, offset, n_bytes)])

    def pieces(self, starts: Sequence[int], ends: Sequence[int]) -> list[Buffer]:
        """Bytes [start, end) of each."""
        return self._bytes.read_many(starts, ends)

    def path_at(self, offset: int) -> str:
        """The path of the row whose payload is there; for messages."""
        for group in range(self.n_groups):
            found = np.flatnonzero(self.headers(group).offset == offset)
            paths = self.row_group(group, ("path",))
            if len(found) and paths is not None:
                return str(paths["path"][int(found[0])].as_py())
        return "a row that is not there"

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Whole columns, every page checked."""
        names = self._names if columns is None else columns
        try:
            with self._reading:
                table = self._file.read(columns=needed_for(names, self._written, self._same))
            return with_known(table, names, self._same)
        except (OSError, pa.ArrowException) as e:
            raise self.damaged(str(e)) from e


def joined_payloads(
    parts: Iterable[tuple[SegmentFile, I64, npt.NDArray[np.uint32]]],
) -> tuple[npt.NDArray[np.uint8], I64]:
    """Payloads of several segments one behind the other, and where each starts; of a segment its offsets and sizes are given."""
    pieces: list[Buffer] = []
    sizes = [_NONE]
    for file, offset, n_bytes in parts:
        pieces += file.pieces(offset.tolist(), (offset + n_bytes).tolist())
        sizes.append(n_bytes)
    return np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(np.concatenate(sizes), dtype=np.int64)


_NONE = np.zeros(1, np.uint32)

STATISTIC_COLUMNS = ("min", "max", "sum", "first", "last", "m2", "raw_sum")
_STATISTICS = (*STATISTIC_COLUMNS, "sum_low")  # which rollups have
_UNUSED = ("shard", "path", "sensor", "quality", "bound", "max_error", "rmse", "arrival", "scale", "offset")


def open_segment(disk: Disk, name: str) -> SegmentFile:
    """Open a segment that no commit describes: `info` is made from the file itself.

    Raises
    ------
    CorruptionError : it is no segment. NotFound : it does not exist.
    """
    data = disk.read(name)
    try:
        digest = _footer_digest(MappedFile(data))
    except ValueError as e:
        raise CorruptionError(f"segment {name} is damaged: {e}; restore it from a backup") from e
    bare = SegmentFile(disk, SegmentInfo(name, len(data), 0, 0, 0, 0, (), digest), data)
    table = bare.table(["t_min", "t_max", "n_samples"])
    if not len(table):
        raise bare.damaged("it has no rows")
    t_min, t_max = _int64(table["t_min"]), _int64(table["t_max"])
    bare.info = SegmentInfo(
        name, len(data), len(table), int(_numbers(table["n_samples"]).sum()), int(t_min.min()), int(t_max.max()),
        tuple(np.unique(t_min // DAY_NS).tolist()), digest,
    )  # fmt: skip
    return bare


def verify_segment(disk: Disk, info: SegmentInfo) -> str:
    """Read every page; "" where the segment is sound, else a sentence that says what is wrong."""
    try:
        SegmentFile(disk, info, disk.read(info.name)).table()
    except (CorruptionError, NotFound) as e:
        return str(e)
    return ""


class _FarFile:
    """A `ReadFile` as Arrow wants a file that is no buffer."""

    closed = False

    def __init__(self, file: ReadFile) -> None:
        self._file, self._at = file, 0

    def read(self, n: int = -1) -> Buffer:
        """The next `n` bytes."""
        end = self._file.size_bytes if n < 0 else min(self._at + n, self._file.size_bytes)
        found = self._file.read(self._at, end)
        self._at = end
        return found

    def seek(self, at: int, whence: int = 0) -> int:
        """Go to a place."""
        self._at = at + (0, self._at, self._file.size_bytes)[whence]
        return self._at

    def tell(self) -> int:
        """The present place."""
        return self._at

    def close(self) -> None:
        """Nothing is held open."""


def _arrow_file(file: ReadFile) -> pa.NativeFile:
    if isinstance(file, MappedFile):
        return pa.BufferReader(pa.py_buffer(file.data))
    return pa.PythonFile(_FarFile(file), mode="r")


def _start(chunk: Any) -> int:
    """First byte of a column chunk."""
    places = (chunk.dictionary_page_offset, chunk.data_page_offset)
    return min(int(at) for at in places if at is not None)


def _stat_ns(statistics: Any, which: str, default: int) -> int:
    return default if statistics is None or not statistics.has_min_max else int(getattr(statistics, which))


def _codes(column: Any, words: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Index of each row's word in `words`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    place = np.array([words.index(w) for w in array.dictionary.to_pylist()], np.uint8)
    codes: npt.NDArray[np.uint8] = place[array.indices.to_numpy()]
    return codes


def _codec_pairs(table: pa.Table) -> tuple[tuple[tuple[str, str], ...], npt.NDArray[np.uint16]]:
    times, values = (table[n].combine_chunks() for n in ("time_codec", "value_codec"))
    n = len(values.dictionary)
    both = times.indices.to_numpy().astype(np.int64) * n + values.indices.to_numpy()
    used, code = np.unique(both, return_inverse=True)
    words = [times.dictionary.to_pylist(), values.dictionary.to_pylist()]
    pairs = tuple((words[0][u // n], words[1][u % n]) for u in used.tolist())
    return pairs, code.astype(np.uint16)


def _time_places(
    table: pa.Table, offset: I64, n_bytes: npt.NDArray[np.uint32]
) -> tuple[I64 | None, npt.NDArray[np.uint32] | None]:
    """Where the payloads with the rows' times are, and their sizes. Raises ValueError."""
    if "times_back" not in table.column_names:
        return None, None
    back = _numbers(table["times_back"]).astype(np.int64)
    if not back.any():  # nor where there are no rows
        return None, None
    row = np.arange(len(back)) - back
    if row.min() < 0 or back[row].any():
        raise ValueError("rows refer to times that are not there")
    return offset[row], n_bytes[row]


def _references(table: pa.Table, of: tuple[Array, ...]) -> Array | None:
    """Where the rows are that values are predicted from. Raises ValueError."""
    if not set(SIBLINGS) <= set(table.column_names):
        return None
    ahead = np.stack([_numbers(table[name]).astype(np.int64) for name in SIBLINGS], axis=1)
    if not ahead.any():
        return None
    row = np.arange(len(ahead))[:, None] + ahead
    if row.min() < 0 or row.max() >= len(ahead) or ahead[row[ahead != 0]].any():
        raise ValueError("rows refer to values that are not there")
    found = np.zeros(ahead.shape, REFERENCE)
    for name, array in zip(REFERENCE.names or (), of, strict=True):
        found[name] = np.where(ahead != 0, array[row], 0)
    return found


def _nullable(column: Any) -> Array:
    return np.asarray(column.fill_null(0).to_numpy())


def _word_lists(column: Any) -> npt.NDArray[np.object_]:
    out = np.empty(len(column), np.object_)
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    for i, words in enumerate(column.to_pylist()):
        if words is not None:
            one = tuple(words)
            out[i] = known.setdefault(one, one)
    return out
