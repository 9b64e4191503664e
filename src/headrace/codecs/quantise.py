"""Values rounded to levels of twice the bound: the codec for noise, and the grid that colder tiers build upon.

The numbers of the levels are coded by `headrace.codecs.integers`. Where the values lie on a grid of their own, as
converters make them, cells may be wider than twice the bound, and are (`headrace.codecs.spacing`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from headrace.codecs.base import I64, Array, Unfit
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.levels import (
    F64,
    TOLERANCE,
    BoundedCodec,
    Room,
    nearest_levels,
    needed,
    odd_multiple,
    spare_bits,
    usable,
)
from headrace.codecs.spacing import Spacing, find_spacing

_SPACED = 1
_GAIN_SURE, _SMALL = 1.1, 200
"""Where cells are wider by that much, and there are more bytes than what describes the grid, they always win."""

_LEVEL_MAX = 2.0**52  # above, not every number of a level is a float64


@dataclass(frozen=True, slots=True)
class QuantiseCodec(BoundedCodec):
    """Numbers of the nearest levels, ``round(value / step)``.

    The body is a head byte (`headrace.codecs.levels`), in variant 1 the values' own grid, then integers.

    Parameters
    ----------
    eps : the bound, in the values' unit, above 0.
    step : distance of the levels, which are its multiples; 0: twice the bound, less what rounding needs. Tiers set
        it, so that their grids nest (`coarser`).

    Examples
    --------
    >>> import numpy as np
    >>> values = np.sin(np.arange(1000) / 50)
    >>> codec = QuantiseCodec(eps=0.001)
    >>> decoded = codec.decode(codec.encode(values), 1000, values.dtype)
    >>> bool(np.abs(decoded - values).max() <= 0.001)
    True
    """

    step: float = 0.0
    name: ClassVar[str] = "quantise"
    variant_max: ClassVar[int] = 1

    def __post_init__(self) -> None:
        BoundedCodec.__post_init__(self)
        if not 0.0 <= self.step <= 2.0 * self.eps:
            raise ValueError(f"a step of {self.step}, up to twice the bound of {self.eps} allowed")

    def fitted(self, values: Array) -> QuantiseCodec:
        """The codec with the step that ``values: T[n]`` and others of their size allow. Raises `Unfit`."""
        spare = spare_bits(values.astype(np.float64), self.eps, values.dtype)
        return replace(self, step=2.0 * usable(self.eps, spare))

    def stepped(self, body: bytes) -> QuantiseCodec:
        """The codec with the step that a body has, so that a later tier can build upon it. Raises `Unfit` where it has none."""
        room = Room.of(body[0]) if body else None
        if room is None or room.variant == _SPACED:
            raise Unfit("its levels are those of the values' own grid")
        return replace(self, step=self._width(room))

    def coarser(self, eps: float, values: Array) -> QuantiseCodec:
        """The codec of a later tier: bound `eps`, levels that are a subset of this one's.

        What it makes of values that this codec decoded is within `eps` of the values before any rounding.

        Parameters
        ----------
        eps : the new bound, against what was measured. values : ``T[n]``, decoded ones.

        Raises
        ------
        Unfit : this codec has no step of its own, or it is too wide for `eps`.
        """
        if not self.step:
            raise Unfit("the step differs from payload to payload; set it (`fitted`)")
        spare = spare_bits(values.astype(np.float64), eps, values.dtype)
        return QuantiseCodec(eps, odd_multiple(self.step, eps, spare))

    def _spare(self, x: F64, dtype: np.dtype[Any]) -> int:
        if not self.step:
            return spare_bits(x, self.eps, dtype)
        room = self.eps - needed(x, self.eps, dtype)
        if self.step > 2.0 * room * TOLERANCE or not float(np.abs(x).max()) < self.step * _LEVEL_MAX:
            raise Unfit(f"values too large for a step of {self.step} and a bound of {self.eps}")
        return 0

    def _pack(self, x: F64, room: Room) -> bytes:
        reach = usable(self.eps, room.spare)
        spacing = None if self.step else find_spacing(x, reach)
        bodies = []
        if spacing is not None:
            head = replace(room, variant=_SPACED).head + spacing.pack()
            bodies.append(head + encode_integers(spacing.cells(x)))
        if spacing is None or spacing.gain(reach) < _GAIN_SURE or len(bodies[0]) < _SMALL:
            bodies.append(room.head + encode_integers(nearest_levels(x, self._width(room))))
        return min(bodies, key=len)

    def _unpack(self, body: bytes, n: int, room: Room) -> F64:
        at = Spacing.unpack(body)[1] if room.variant == _SPACED else 0
        return self._of_integers(body, decode_integers(body[at:], n), room)

    def _of_integers(self, body: bytes, numbers: I64, room: Room) -> F64:
        if room.variant == _SPACED:
            return Spacing.unpack(body)[0].middles(numbers)
        if not room.spare and not self.step:
            raise self.damaged("it does not say its step")
        return numbers.astype(np.float64) * self._width(room)

    def integers_at(self, body: bytes) -> int:
        """Where the integers of a body begin. Raises ValueError, IndexError or struct.error where it is no such body."""
        return 1 + (Spacing.unpack(body[1:])[1] if Room.of(body[0]).variant == _SPACED else 0)

    def of_integers(self, head: bytes, numbers: I64, dtype: np.dtype[Any]) -> Array:
        """What a body without its integers, and these, are decoded to. Raises as `unpack`."""
        if not head:
            raise self.damaged("it is empty")
        room = self._room(head, dtype)
        with np.errstate(all="ignore"):  # levels that no encoder writes may overflow
            return self._of_integers(head[1:], numbers, room).astype(dtype)

    def _width(self, room: Room) -> float:
        return 2.0 * usable(self.eps, room.spare) if room.spare else self.step
