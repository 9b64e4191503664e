"""Rows of the cold tier that are predicted from rows of the same device: which are, and what it takes to part them.

``sibling`` and ``sibling_2`` of a row say where in its row group the rows are that its values are predicted from
(`headrace.store.schema`, `headrace.codecs.sibling`). Those have the same times, and are not predicted themselves, so that to
read any row takes at most two others. A trial on a sample of each chunk says which pairs are worth coding in full; a row is
predicted where that saves a twentieth of its bytes. Rows that leave their place get their own values back first
(`own_values`), and are tried again where they end up (`share_values`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.codecs.base import same_bits
from headrace.codecs.integers import decode_integers
from headrace.codecs.origin import OriginCodec, explains
from headrace.codecs.packing import put_varint
from headrace.codecs.quantise import QuantiseCodec
from headrace.codecs.sibling import IntegerCodec, SiblingCodec
from headrace.core.layouts import numpy_dtype
from headrace.store.schema import SIBLINGS, coded
from headrace.store.segment import row_cuts
from headrace.store.time_axes import sound_parts
from headrace.store.warm import BARE, SIBLING, codec_name, decode_values, sealed, values_of

Array = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

GAIN_MIN, _SAVED_MIN = 0.05, 16
"""Of a row's bytes, and bytes: what a row that needs another has to save."""
_ROUGH, _LIKELY, _SECOND = 0.01, 0.04, 0.04
"""Share of the bits that mean squares have to promise of a sibling before it is looked at, the look of it, and that of a second beside it."""
_LOOKS = 4
_SAME = 1e-6
"""Of two siblings: they say the same where what one adds to the other is a smaller share."""
_FRAMES_MIN, _BYTES_MIN = 128, 64
_SAMPLE, _RUNS, _TOGETHER = 1_024, 4, 128
_BYTES_MAX, _ROWS_MAX = 4 << 20, 1_024
"""Rows that may refer to each other stand in one row group, as those that share times do."""
_ORDERS = 3


@dataclass(slots=True, eq=False)
class _Row:
    """A row whose values are integers behind some codec.

    ``front``: settings that stand before the codec's body; ``numbers``: its integers; ``values``: what it is decoded to.
    """

    index: int
    codec: IntegerCodec
    front: bytes
    body: bytes
    numbers: I64
    dtype: np.dtype[Any]
    values: Array | None = None


class _Plan(NamedTuple):
    """A row that is likely to be predicted well, from which, and by differences of which order: places in the group."""

    row: int
    siblings: tuple[int, ...]
    order: int


class _Columns:
    """The columns of a table that say how its rows are coded, to be read and changed."""

    def __init__(self, table: pa.Table) -> None:
        self.payload: list[bytes] = table["payload"].to_pylist()
        self.value: list[str] = table["value_codec"].to_pylist()
        self.time: list[str] = table["time_codec"].to_pylist()
        self.dtype: list[str] = table["dtype"].to_pylist()
        self.path: list[str] = table["path"].to_pylist()
        self.frames: list[int] = table["n_frames"].to_pylist()
        self.spans = [table[name].cast(pa.int64()).to_pylist() for name in ("t_min", "t_max")]
        self.is_text = [words is not None for words in table["dictionary"].to_pylist()]
        self.back: list[int] = table["times_back"].fill_null(0).to_pylist()
        both = [table[name].fill_null(0).to_numpy() for name in SIBLINGS]
        self.sibling = np.stack(both, axis=1).astype(np.int32)

    def put(self, row: int, body: bytes, text: str, siblings: Sequence[int]) -> None:
        """Give a row another body of values."""
        payload = self.payload[row]
        at, first, second = sound_parts(payload)
        sizes = put_varint(first - at) + put_varint(len(body) if second < len(payload) else 0)
        self.payload[row] = sealed(sizes + payload[at:first] + body + payload[second:])
        self.value[row] = text
        self.sibling[row] = 0
        self.sibling[row, : len(siblings)] = [one - row for one in siblings]

    def into(self, table: pa.Table) -> pa.Table:
        """The table with what has changed."""
        words = sorted(set(self.value))
        number = {word: i for i, word in enumerate(words)}
        columns: dict[str, Any] = {
            "payload": pa.array(self.payload, pa.binary()), "n_bytes": pa.array([len(one) for one in self.payload], pa.uint32()),
            "value_codec": coded(np.array([number[one] for one in self.value], np.int32), words),
            **{name: pa.array(self.sibling[:, i], pa.int32()) for i, name in enumerate(SIBLINGS)},
        }  # fmt: skip
        for name, column in columns.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), column)
        return table

    def axis(self, row: int) -> tuple[Any, ...]:
        """What stands for the times of a row."""
        leader = self.payload[row - self.back[row]]
        at, first, _ = sound_parts(leader)
        return self.time[row], leader[at:first], self.frames[row], *(span[row] for span in self.spans)

    def values(self, row: int) -> Array:
        """Of a row that is not predicted. Raises `CorruptionError`."""
        dtype = numpy_dtype(self.dtype[row])
        return decode_values(self.payload[row], self.value[row], self.frames[row], dtype)


def own_values(table: pa.Table, rows: I64) -> pa.Table:
    """Whole row groups, of which these rows need no others' values. Raises `CorruptionError`."""
    if not any(table[name].fill_null(0).to_numpy().any() for name in SIBLINGS):
        return table
    columns = _Columns(table)
    for row in rows[columns.sibling[rows].any(axis=1)].tolist():
        siblings = tuple(columns.values(row + ahead) for ahead in columns.sibling[row].tolist() if ahead)
        codec, front, body = _coded(columns, row)
        plain = SiblingCodec(codec, siblings).plain(body, columns.frames[row])
        columns.put(row, front + plain, columns.value[row].removeprefix(SIBLING), ())
    return columns.into(table)


def share_values(table: pa.Table, may: Callable[[str], bool], tick: Callable[[], None]) -> pa.Table:
    """Rows by path and time that have their own values, with those predicted from others that get smaller by it.

    Parameters
    ----------
    may : whether the values of a path may be predicted. tick : called now and then; it may wait.

    Raises
    ------
    CorruptionError : a row is damaged.
    """
    columns = _Columns(table)
    for group in _groups(columns, row_cuts(table)):
        rows = [row for row in (_row(columns, one) for one in group) if row is not None]
        for plan in _plans([row.numbers for row in rows], [len(row.body) for row in rows]):
            if may(columns.path[rows[plan.row].index]):
                _predict(columns, rows[plan.row], [rows[i] for i in plan.siblings], plan.order)
        tick()
    return columns.into(table)


def are_siblings(table: pa.Table, may: Callable[[str], bool]) -> bool:
    """Whether a trial promises that a row of `share_values`, which it is given as that is, gets smaller. Raises as that."""
    columns = _Columns(table)
    for group in _groups(columns, row_cuts(table)):
        rows = [row for row in (_row(columns, one) for one in group) if row is not None]
        plans = _plans([row.numbers for row in rows], [len(row.body) for row in rows])
        if any(may(columns.path[rows[plan.row].index]) for plan in plans):
            return True
    return False


def _groups(columns: _Columns, cuts: I64) -> Iterator[list[int]]:
    """Rows of one device and the same times that will stand in one row group, so many that all pairs can be looked at."""
    for first, last in _windows(columns, cuts):
        same: dict[tuple[Any, ...], list[int]] = {}
        for row in range(first, last):
            if columns.time[row].startswith(BARE):  # what earlier releases wrote stays as it is
                same.setdefault(columns.axis(row), []).append(row)
        for rows in same.values():
            for at in range(0, len(rows), _TOGETHER):
                if len(rows) - at > 1:
                    yield rows[at : at + _TOGETHER]


def _windows(columns: _Columns, cuts: I64) -> Iterator[tuple[int, int]]:
    """Runs of rows of one device, so short that they fit in a row group, and parted where that may end."""
    first, device, size = 0, "", 0
    for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        mine = columns.path[a].rpartition("/")[0]
        if a > first and (mine != device or b - first > _ROWS_MAX or size > _BYTES_MAX):
            yield first, a
            first, size = a, 0
        device = mine
        size += sum(len(one) for one in columns.payload[a:b])
    if len(cuts) > 1:
        yield first, int(cuts[-1])


def _coded(columns: _Columns, row: int) -> tuple[IntegerCodec, bytes, bytes]:
    """The codec of a row's values, the settings in front of its body, and that."""
    payload = columns.payload[row]
    _, first, second = sound_parts(payload)
    codec, body = values_of(payload, columns.value[row])
    return cast("IntegerCodec", codec), payload[first : second - len(body)], body


def _row(columns: _Columns, row: int) -> _Row | None:
    """The row, where it has integers of which something can be expected."""
    text, n = columns.value[row], columns.frames[row]
    if (
        columns.is_text[row]
        or n < _FRAMES_MIN
        or codec_name(text) not in (OriginCodec.name, QuantiseCodec.name)
    ):
        return None
    codec, front, body = _coded(columns, row)
    if len(body) < _BYTES_MIN or (isinstance(codec, OriginCodec) and not explains(body)):
        return None
    numbers = decode_integers(body[codec.integers_at(body) :], n)
    return _Row(row, codec, front, body, numbers, numpy_dtype(columns.dtype[row]))


# --- which -------------------------------------------------------------------------------------------


def _plans(numbers: Sequence[I64], sizes: Sequence[int]) -> list[_Plan]:
    """What is likely to gain, by a sample of each: no row is both predicted and predicted from."""
    if len(numbers) < 2:
        return []
    trial = _Trial(_sampled(numbers))
    gain, order = trial.gains()
    followers = _followers(gain * np.array(sizes)[:, None])
    leaders = np.flatnonzero(~followers)
    plans = []
    for row in np.flatnonzero(followers).tolist():
        best = int(leaders[np.argmax(gain[row, leaders])])
        plan = _Plan(row, (best,), int(order[row]))
        plans.append(trial.with_second(plan, leaders, float(gain[row, best])))
    return plans


def _sampled(numbers: Sequence[I64]) -> F64:
    """Runs of each, evenly spread: float64[m, runs, length]; from their mean."""
    n = len(numbers[0])
    size = _SAMPLE // _RUNS if n > _SAMPLE else n
    first = np.linspace(0, n - size, _RUNS if n > _SAMPLE else 1).astype(np.int64)
    at = first[:, None] + np.arange(size)
    sample = np.stack([one[at] for one in numbers]).astype(np.float64)
    sample -= np.rint(sample.mean(axis=(1, 2), keepdims=True))
    return sample


class _Trial:
    """How well a sample of rows is predicted: ``sample`` of `_sampled`.

    ``products[order, i, j]``: mean product of the differences of order 0, 1 and 2 of two rows.
    """

    def __init__(self, sample: F64) -> None:
        self.sample = sample
        m = len(sample)
        self.products = np.empty((_ORDERS, m, m))
        for order in range(_ORDERS):
            left = np.diff(sample, order).reshape(m, -1)
            self.products[order] = left @ left.T / left.shape[1]
        self.alone = np.min([_bits(np.diff(sample, order)) for order in range(_ORDERS)], axis=0)

    def gains(self) -> tuple[F64, I64]:
        """The share of its bits that each row would save with each other one as its sibling, and of which order each row's differences are.

        Mean squares say which few others are worth a look; a look at the bits says what they are worth.
        """
        own = np.diagonal(self.products, axis1=1, axis2=2)
        with np.errstate(all="ignore"):  # what never changes says nothing
            left = own[:, :, None] - self.products**2 / own[:, None, :]
            bits = np.log2(1.0 + 12.0 * np.maximum(left, 0.0) + _ROUNDING)
            least = np.log2(1.0 + 12.0 * own).min(axis=0)
            bits[~np.isfinite(bits)] = np.inf
            rough = 1.0 - bits.min(axis=0) / least[:, None]
        np.fill_diagonal(rough, 0.0)
        rough[~np.isfinite(rough)] = 0.0
        rough[self.alone <= 0.0] = 0.0
        gain, order = np.zeros(rough.shape), np.zeros(len(rough), np.int64)
        for row in np.flatnonzero((rough > _ROUGH).any(axis=1)).tolist():
            others = np.argsort(-rough[row], kind="stable")[:_LOOKS]
            others = others[rough[row, others] > _ROUGH]
            order[row] = bits[:, row, others[0]].argmin()
            c = self.products[order[row]]
            with np.errstate(all="ignore"):
                weights = np.nan_to_num(c[row, others] / c[others, others])[:, None]
            share = 1.0 - self.bits(row, others[:, None], weights, int(order[row])) / self.alone[row]
            gain[row, others] = np.where(share >= _LIKELY, share, 0.0)
        return gain, order

    def bits(self, row: int, siblings: I64, weights: F64, order: int) -> F64:
        """Bits a number of a row predicted from ``siblings: int64[k, n]`` with these weights: float64[k]."""
        total = (weights[:, :, None, None] * self.sample[siblings]).sum(axis=1)
        return _bits(np.diff(self.sample[row] - np.rint(total), order))

    def with_second(self, plan: _Plan, leaders: I64, gain: float) -> _Plan:
        """With another sibling beside the first, where that promises enough more than the `gain` of that."""
        row, (first,), order = plan
        c = self.products[order]
        a, b, ab = c[first, first], c[leaders, leaders], c[first, leaders]
        x, y = c[row, first], c[row, leaders]
        independent = a * b - ab * ab
        with np.errstate(all="ignore"):
            left = c[row, row] - (b * x * x - 2.0 * ab * x * y + a * y * y) / independent
            left[~(independent > _SAME * a * b)] = np.inf
            if not np.isfinite(left.min()) or not left.min() < (1.0 - _SECOND) * (c[row, row] - x * x / a):
                return plan
        best = int(np.argmin(left))
        weights = np.array([b[best] * x - ab[best] * y[best], a * y[best] - ab[best] * x]) / independent[best]
        both = np.array([first, leaders[best]])
        bits = float(self.bits(row, both[None], weights[None], order)[0])
        is_better = bits < (1.0 - _SECOND) * (1.0 - gain) * self.alone[row]
        return _Plan(row, tuple(both.tolist()), order) if is_better else plan


_ROUNDING = np.array([1.0, 2.0, 6.0])[:, None, None]
"""What rounding a prediction adds to the mean squares of differences, in twelfths."""


def _bits(left: F64) -> F64:
    """About the bits a number of ``float64[m, runs, length]``, for a coder that follows how large they are: float64[m]."""
    found: F64 = np.log2(1.0 + 2.0 * np.abs(left)).mean(axis=(1, 2))
    return found


def _followers(gain: F64) -> Bools:
    """Which rows to predict, so that most is saved: row after row that others follow is taken, as long as that saves more."""
    n = len(gain)
    saved, is_leader = np.zeros(n), np.zeros(n, np.bool_)
    while True:
        more = np.maximum(gain - saved[:, None], 0.0)
        more[is_leader] = 0.0
        total = more.sum(axis=0) - saved
        total[is_leader] = 0.0
        best = int(np.argmax(total))
        if not total[best] > 0.0:
            return saved > 0.0
        is_leader[best] = True
        saved = np.where(is_leader, 0.0, np.maximum(saved, gain[:, best]))


# --- how ---------------------------------------------------------------------------------------------


def _predict(columns: _Columns, row: _Row, siblings: Sequence[_Row], order: int) -> None:
    """Predict a row from others, where that saves enough of it."""
    for one in siblings:
        if one.values is None:
            one.values = columns.values(one.index)
    values = tuple(one.values for one in siblings if one.values is not None)
    weights = _weights(row.numbers, values, order)
    if not np.isfinite(weights).all():
        return
    n = len(row.numbers)
    body = SiblingCodec(row.codec, values, tuple(weights.tolist())).predict(row.body, n)
    saved = len(row.body) - len(body)
    if saved < max(_SAVED_MIN, GAIN_MIN * len(columns.payload[row.index])):
        return
    dtype = (
        np.dtype(np.float64) if isinstance(row.codec, QuantiseCodec) and row.dtype.kind != "f" else row.dtype
    )
    decoded = SiblingCodec(row.codec, values).unpack(body, n, dtype)
    if same_bits(decoded, row.codec.unpack(row.body, n, dtype)):
        text = SIBLING + columns.value[row.index]
        columns.put(row.index, row.front + body, text, [one.index for one in siblings])


def _weights(numbers: I64, siblings: Sequence[Array], order: int) -> F64:
    """Least squares, of differences of an order; those of order 0 from their mean."""
    with np.errstate(all="ignore"):
        y = np.stack([one.astype(np.float64) for one in siblings])
        y = np.diff(np.where(np.isfinite(y), y, 0.0), order, axis=1)
        x = np.diff(numbers.astype(np.float64), order)
        if not order:
            x, y = x - x.mean(), y - y.mean(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        try:
            return np.asarray(np.linalg.solve(y @ y.T, y @ x), np.float64)
        except np.linalg.LinAlgError:  # they say the same, or nothing
            return np.full(len(siblings), np.nan)
