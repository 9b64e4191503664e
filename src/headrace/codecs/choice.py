"""What a user says about the codecs of some sensors, and the choice that keeps to it.

Without a word the smallest of a portfolio wins (`headrace.codecs.select`). A user may name the codec, forbid some, or
weigh decoding speed against size. Speeds are nominal, of a table: what is chosen, and so what is written, must be the same
on every machine and every day, or a compaction that was killed and runs again would write other bytes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from headrace.codecs.base import Array, Unfit, ValueCodec, same_bits
from headrace.codecs.bounds import Reach
from headrace.codecs.byte_planes import BytePlanesCodec
from headrace.codecs.const import ConstCodec
from headrace.codecs.hold import HoldCodec
from headrace.codecs.origin import OriginCodec
from headrace.codecs.pco import PcoCodec
from headrace.codecs.piecewise_constant import PiecewiseConstantCodec
from headrace.codecs.quantise import QuantiseCodec
from headrace.codecs.raw import RawCodec
from headrace.codecs.registry import VALUE_CODECS, is_lossy, keeps_eps, value_codec
from headrace.codecs.relative import RelativeCodec
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.rle import RleCodec
from headrace.codecs.seasonal import SeasonalCodec
from headrace.codecs.select import ChosenValues
from headrace.codecs.swing import SwingCodec
from headrace.codecs.swinging_door import SwingingDoorCodec
from headrace.core.errors import ConfigError
from headrace.core.registry import nearest

DECODE_NS = {
    "const": 0.2, "raw": 0.2, "rle": 2.0, "pco": 4.0, "gorilla": 4.0, "hold": 5.0, "piecewise_constant": 5.0, "swing": 5.0,
    "swinging_door": 5.0, "byte_planes": 6.0, "rice_delta": 7.0, "relative": 14.0, "quantise": 15.0, "seasonal": 18.0,
    "origin": 20.0,
}  # fmt: skip
"""What decoding a value costs, nominally, in chunks of a thousand; see `headrace codecs explain` for what it is here."""

DECODE_NS_ELSE = 10.0
"""The same of any other codec."""


@dataclass(frozen=True, slots=True)
class CodecChoice:
    """What is said about the codecs of a sensor's values.

    Parameters
    ----------
    use : the codec to take, where it can hold a chunk; where it can't, the rest of the choice counts. One with a bound is
        taken where a bound is given, and not where the chunk is to be lossless. forbid : codecs never to take; ``raw`` is
        what is left where nothing else fits, and can't be forbidden. weight : 0 for the smallest chunk, 1 for the fastest
        to decode; between them the least ``bytes ** (1 - weight) * decode_ns ** weight``. share : how far each value may
        be from what it was, as a share of it, instead of an absolute bound; 0 for none.

    Raises
    ------
    ConfigError : an unknown codec, one that is both used and forbidden, or a weight that is none.
    """

    use: str = ""
    forbid: frozenset[str] = frozenset()
    weight: float = 0.0
    share: float = 0.0

    def __post_init__(self) -> None:
        for key, name in (("use", self.use), *(("forbid", name) for name in sorted(self.forbid))):
            if name and name not in VALUE_CODECS:
                raise ConfigError(f"there is no codec {name!r}{nearest(name, VALUE_CODECS.names())}", key)
        if RawCodec.name in self.forbid:
            raise ConfigError(
                "'raw' can't be forbidden: it is what is left where no other codec fits", "forbid"
            )
        if self.use and self.use in self.forbid:
            raise ConfigError(
                f"{self.use!r} is to be used and forbidden; take it out of one of them", "forbid"
            )
        if self.use and not is_lossy(VALUE_CODECS.load(self.use)):
            try:
                value_codec({"name": self.use})
            except ConfigError as e:
                raise ConfigError(f"{self.use!r} can't be used without settings: {e.message}", "use") from e
        if not 0.0 <= self.weight <= 1.0:
            raise ConfigError(
                f"a weight is from 0, size, to 1, speed of decoding; got {self.weight}", "weight"
            )

    @property
    def is_free(self) -> bool:
        """Whether nothing is said of the codec."""
        return not (self.use or self.forbid or self.weight)

    def allows(self, name: str) -> bool:
        """Whether nothing speaks against a codec: it is the one to use, or none is named and this one is not forbidden."""
        return name == self.use if self.use else name not in self.forbid

    def score(self, name: str, n_bytes: int, n: int) -> float:
        """What the least of is taken, a logarithm: of size and nominal time to decode n values."""
        ns = DECODE_NS.get(name, DECODE_NS_ELSE) * max(1, n)
        return (1.0 - self.weight) * math.log(max(1, n_bytes)) + self.weight * math.log(ns)


ANY = CodecChoice()
"""Nothing is said: the smallest wins."""


def lossless_candidates(values: Array) -> list[ValueCodec]:
    """Codecs that may hold ``values: T[n]`` as they are, the fast ones first; raw, which always does, is none of them."""
    floats: list[ValueCodec] = [OriginCodec()] if values.dtype.kind == "f" else []
    return [ConstCodec(), RiceDeltaCodec(), RleCodec(), *floats, PcoCodec(), BytePlanesCodec()]


def lossy_candidates(values: Array, reach: Reach) -> list[ValueCodec]:
    """Codecs that may keep the reach, the fast ones first; none for what is not a float, or where nothing may be lost."""
    if values.dtype.kind != "f" or reach.is_lossless or not values.size:
        return []
    found: list[ValueCodec] = []
    eps = reach.within(values)
    if 0.0 < eps < math.inf:
        found += [
            QuantiseCodec(eps), HoldCodec(eps), PiecewiseConstantCodec(eps), SwingCodec(eps), SwingingDoorCodec(eps),
            SeasonalCodec(eps),
        ]  # fmt: skip
    if reach.share > 0.0:
        with contextlib.suppress(ValueError):  # a share that it has no levels for
            found.append(RelativeCodec(reach.share))
    return found


def proven(values: Array, codec: ValueCodec, reach: Reach) -> bytes | None:
    """The body of ``values: T[n]``, decoded and compared; None where it gives back others, or ones that pass the reach.

    Raises
    ------
    Unfit : the codec can't hold them.
    """
    body = codec.pack(values)
    decoded = codec.unpack(body, values.size, values.dtype)
    # A share of nothing but zeros is nothing: not even the signs of zeros may be lost then.
    if is_lossy(type(codec)) and bound_of(codec, values) > 0.0:
        return body if reach.kept(decoded, values) else None
    return body if same_bits(decoded, values) else None


def steered(values: Array, choice: CodecChoice, reach: Reach) -> ChosenValues:
    """The codec that a choice leads to, for ``values: T[n]`` and how far they may be off; raw where nothing is left."""
    if choice.use:
        asked = candidate(choice.use, values, reach)
        found = None if asked is None else best_of(values, [asked], ANY, reach)
        if found is not None:
            return found
    candidates = [*lossless_candidates(values), *lossy_candidates(values, reach)]
    allowed = [RawCodec(), *(codec for codec in candidates if codec.name not in choice.forbid)]
    return best_of(values, allowed, choice, reach) or ChosenValues(RawCodec(), RawCodec().pack(values))


def steered_whole(values: Array, choice: CodecChoice, reach: Reach, lossless: ChosenValues) -> ChosenValues:
    """The same of whole numbers as ``values: float64[n]``: `lossless`, or a codec with a bound that the choice prefers."""
    if choice.use and choice.use == lossless.codec.name:
        return lossless
    asked = candidate(choice.use, values, reach) if choice.use else None
    found = best_of(values, [asked], ANY, reach) if asked is not None and is_lossy(type(asked)) else None
    if found is not None:
        return found
    allowed = [codec for codec in lossy_candidates(values, reach) if codec.name not in choice.forbid]
    found = best_of(values, allowed, choice, reach)
    scores = [
        choice.score(one.codec.name, len(one.body), values.size) for one in (found or lossless, lossless)
    ]
    return found if found is not None and scores[0] < scores[1] else lossless


def best_of(
    values: Array, candidates: Iterable[ValueCodec], choice: CodecChoice, reach: Reach
) -> ChosenValues | None:
    """The candidate with the least score that proves itself; None where none does. Of equal ones the first."""
    best: ChosenValues | None = None
    least = math.inf
    for codec in candidates:
        try:
            body = proven(values, codec, reach)
        except Unfit:
            continue
        score = math.inf if body is None else choice.score(codec.name, len(body), values.size)
        if body is not None and score < least:
            best, least = ChosenValues(codec, body), score
    return best


def smallest_share(values: Array, share: float, best: ChosenValues) -> ChosenValues:
    """`best`, or what a share of each value makes smaller."""
    reach = Reach(share=share)
    found = best_of(values, lossy_candidates(values, reach), ANY, reach)
    return found if found is not None and len(found.body) < len(best.body) else best


def candidate(name: str, values: Array, reach: Reach) -> ValueCodec | None:
    """The codec of that name, with the bound where it has one; None where it has one and there is none that it keeps."""
    part = VALUE_CODECS.load(name)
    if not is_lossy(part):
        return value_codec({"name": name})
    if reach.is_lossless or values.dtype.kind != "f":
        return None
    bound = {"eps": reach.within(values)} if keeps_eps(part) else {"share": reach.share}
    try:
        return value_codec({"name": name, **bound})
    except ConfigError:  # 0, or smaller than it has levels for
        return None


def bound_of(codec: ValueCodec, values: Array) -> float:
    """The absolute bound that a codec declares for ``values: T[n]``, in their unit; 0 where it is lossless."""
    share = float(getattr(codec, "share", 0.0))
    if share > 0.0 and values.size:
        return share * float(np.abs(values.astype(np.float64)).max())
    return float(getattr(codec, "eps", 0.0))
