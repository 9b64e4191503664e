"""Every codec on the chunks of a series: what the store takes, and what each of the others would have cost.

The winner is what `headrace.store.warm.encode_chunk` takes, of chunk after chunk. The other codecs are tried in full beside
it, also those that a shorter trial passes over, so that it shows where that is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import Unfit, same_bits
from headrace.codecs.bounds import Bound, Reach
from headrace.codecs.choice import ANY, CodecChoice, candidate
from headrace.codecs.loss import measure
from headrace.codecs.registry import TIME_CODECS, VALUE_CODECS, is_lossy, is_tolerant, refers
from headrace.codecs.regular import RegularTime
from headrace.core.clock import thread_cpu_ns
from headrace.core.errors import ConfigError, CorruptionError, PluginError
from headrace.store.warm import (
    BARE,
    CHUNK_SAMPLES,
    Chunk,
    codec_name,
    decode_chunk,
    encode_chunk,
    time_bytes,
    value_bytes,
)

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

CHUNKS_MAX = 8
_REPEATS = 2
_SHARES = tuple(float(f"{10.0**e:.3g}") for e in np.arange(-5.0, -0.9, 0.5))


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one codec.

    Parameters
    ----------
    n_fit : chunks that it could hold, within the bound. n_won : chunks that the store gave to it. size_bytes : of the chunks
        that it could hold. encode_ns, decode_ns : CPU time of a sample; None where it held none. max_error : largest, in the
        values' unit. outcome : a few words on why it won or not.
    """

    name: str
    n_fit: int
    n_won: int
    size_bytes: int
    encode_ns: float | None
    decode_ns: float | None
    max_error: float
    outcome: str

    def to_dict(self) -> dict[str, Any]:
        """All by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class CodecTrials:
    """Tries codecs on one series.

    Parameters
    ----------
    ts_ns : int64[n]. values : T[n], n at least 1. bound : how far values may be off; None for lossless. choice : what is
        said about the codecs. block : samples of a chunk. most : chunks that are tried, evenly spread over the series.

    Raises
    ------
    ConfigError : no samples.
    """

    def __init__(
        self,
        ts_ns: I64,
        values: Array,
        bound: Bound | None = None,
        choice: CodecChoice = ANY,
        block: int = CHUNK_SAMPLES,
        most: int = CHUNKS_MAX,
    ) -> None:
        if not values.size:
            raise ConfigError("a series without samples has no chunks")
        starts = np.arange(0, values.size, block)
        self.n_chunks = starts.size
        if starts.size > most:
            starts = starts[np.linspace(0, starts.size - 1, most).round().astype(np.int64)]
        self.parts = [(ts_ns[a : a + block], values[a : a + block]) for a in starts.tolist()]
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        self.range = high - low
        self.reach = Reach() if bound is None else bound.reach(low, high)
        self.choice = choice
        of_share = replace(choice, share=self.reach.share)
        self.chunks = [encode_chunk(ts, v, None, self.reach.eps, of_share) for ts, v in self.parts]

    @property
    def n_samples(self) -> int:
        """Samples of the chunks that are tried."""
        return sum(values.size for _, values in self.parts)

    @property
    def size_bytes(self) -> int:
        """Bytes of the chunks that are tried, as the store writes them, without their row's header."""
        return sum(len(chunk.payload) for chunk in self.chunks)

    def encode(self, part: tuple[I64, Array], eps: float) -> Chunk:
        """A chunk with another absolute bound."""
        return encode_chunk(part[0], part[1], None, eps, self.choice)

    def decoded(self, chunk: Chunk, part: tuple[I64, Array]) -> Array:
        """What a chunk gives back."""
        (ts_ns, values), codecs = part, (chunk.time_codec, chunk.value_codec)
        span = int(ts_ns[0]), int(ts_ns[-1])
        return decode_chunk(chunk.payload, codecs, values.size, values.dtype, span)[1]

    def of_values(self) -> list[Trial]:
        """Every codec of values that is installed: the winners first, then by size."""
        won = Counter(_name(chunk.value_codec) for chunk in self.chunks)
        best = sum(value_bytes(chunk.payload) for chunk in self.chunks)
        trials = [self._tried(name, won[name], best, self._try_values(name)) for name in VALUE_CODECS.names()]
        return sorted(trials, key=_rank)

    def of_times(self) -> list[Trial]:
        """The same of times: those that are exact and decode alone."""
        won = Counter(_name(chunk.time_codec.removeprefix(BARE)) for chunk in self.chunks)
        best = sum(time_bytes(chunk.payload) for chunk in self.chunks)
        names = [n for n in TIME_CODECS.names() if not _is_special(n)]
        trials = [self._tried(name, won[name], best, self._try_times(name)) for name in names]
        return sorted(trials, key=_rank)

    def why(self, trials: Sequence[Trial]) -> str:
        """A sentence on why the winner of the values won."""
        first = trials[0]
        of_all = "" if first.n_won == len(self.parts) else f" in {first.n_won} of {len(self.parts)} chunks"
        if self.choice.use == first.name:
            return f"{first.name} is what the plant file or the command asks for"
        if self.choice.weight > 0:
            return f"{first.name} has the least bytes^{1 - self.choice.weight:g} x decoding time^{self.choice.weight:g}{of_all}"
        others = [t for t in trials[1:] if t.n_fit == len(self.parts) and t.size_bytes]
        if not others:
            return f"{first.name} is smallest{of_all}"
        next_one = min(others, key=lambda t: t.size_bytes)
        share = 100.0 * (1.0 - first.size_bytes / next_one.size_bytes)
        if share < 0 or first.n_fit < len(self.parts):
            return f"{first.name} is smallest{of_all}; over all of them {next_one.name} would take {next_one.size_bytes:,} bytes"
        return f"{first.name} is smallest{of_all}: {share:.3g} % less than {next_one.name}, the next"

    def curve(self) -> list[tuple[float, int, float]]:
        """Bounds as shares of the range, bytes of the chunks, and root mean square error with it."""
        found = []
        whole = np.concatenate([values for _, values in self.parts])
        for share in _SHARES if self.range > 0 and whole.dtype.kind == "f" else ():
            chunks = [self.encode(part, share * self.range) for part in self.parts]
            back = np.concatenate([self.decoded(c, part) for c, part in zip(chunks, self.parts, strict=True)])
            found.append((share, sum(len(c.payload) for c in chunks), measure(whole, back, lags=0).rmse))
        return found

    def _tried(self, name: str, n_won: int, best: int, runs: list[_Run | str]) -> Trial:
        held = [run for run in runs if not isinstance(run, str)]
        refusals = [run for run in runs if isinstance(run, str)]
        n = sum(run.n for run in held)
        size = sum(run.size_bytes for run in held)
        encode_ns = sum(run.encode_ns for run in held) / n if n else None
        decode_ns = sum(run.decode_ns for run in held) / n if n else None
        outcome = self._outcome(name, n_won, size / best if best and not refusals else None, refusals)
        error = max((run.max_error for run in held), default=0.0)
        return Trial(name, len(held), n_won, size, encode_ns, decode_ns, error, outcome)

    def _outcome(self, name: str, n_won: int, ratio: float | None, refusals: list[str]) -> str:
        if n_won:
            return "won" if n_won == len(self.parts) else f"won {n_won} of {len(self.parts)} chunks"
        if name in self.choice.forbid:
            return "forbidden"
        if refusals:
            part = (
                "" if len(refusals) == len(self.parts) else f"{len(refusals)} of {len(self.parts)} chunks: "
            )
            return part + refusals[0]
        if ratio is None or ratio == 1.0:
            return "as large"
        if ratio < 1.0:
            reason = "not tried by the store"
            if not self.choice.is_free:
                reason = "slower to decode" if self.choice.weight else "another was asked for"
            return f"{100 * (1 - ratio):.3g} % smaller; {reason}"
        return f"{100 * (ratio - 1):.3g} % larger" if ratio < 10 else f"{ratio:,.0f} times as large"

    def _try_values(self, name: str) -> list[_Run | str]:
        return [self._try_chunk(name, values) for _, values in self.parts]

    def _try_chunk(self, name: str, values: Array) -> _Run | str:
        part = VALUE_CODECS.load(name)
        if is_lossy(part) and self.reach.is_lossless:
            return "needs a bound"
        try:
            codec = candidate(name, values, self.reach)
        except (ConfigError, PluginError) as e:
            return str(e)
        if codec is None:
            return "keeps no such bound"

        def check(decoded: Array) -> bool:
            return self.reach.kept(decoded, values) if is_lossy(part) else same_bits(decoded, values)

        return _run(values, codec.pack, lambda body: codec.unpack(body, values.size, values.dtype), check)

    def _try_times(self, name: str) -> list[_Run | str]:
        codec = TIME_CODECS.load(name)()

        def of_chunk(ts_ns: I64) -> _Run | str:
            return _run(
                ts_ns, codec.pack, lambda b: codec.unpack(b, ts_ns.size), lambda d: same_bits(d, ts_ns)
            )

        # As in a chunk: from the first on, and nothing where they are even, since the header says it all.
        runs = [of_chunk(ts_ns - ts_ns[0]) for ts_ns, _ in self.parts]
        if name != RegularTime.name:
            return runs
        return [run if isinstance(run, str) else replace(run, size_bytes=0) for run in runs]


@dataclass(frozen=True, slots=True)
class _Run:
    n: int
    size_bytes: int
    encode_ns: int
    decode_ns: int
    max_error: float


def _run(
    x: Array, pack: Callable[[Array], bytes], unpack: Callable[[bytes], Array], check: Callable[[Array], bool]
) -> _Run | str:
    """One chunk by one codec; a few words where it can't hold it."""
    encode_ns, decode_ns = [], []
    try:
        for _ in range(_REPEATS):  # the first may compile
            begun = thread_cpu_ns()
            body = pack(x)
            between = thread_cpu_ns()
            decoded = unpack(body)
            encode_ns.append(between - begun)
            decode_ns.append(thread_cpu_ns() - between)
    except Unfit as e:
        return f"unfit: {e}"
    except CorruptionError as e:
        return f"can't read what it wrote: {e}"
    if not check(decoded):
        return "gives back others"
    error = 0.0
    if x.dtype.kind == "f" and not same_bits(decoded, x):
        error = float(np.abs(decoded.astype(np.float64) - x.astype(np.float64)).max())
    return _Run(x.size, len(body), min(encode_ns), min(decode_ns), error)


def _name(text: str) -> str:
    return codec_name(text)


def _rank(trial: Trial) -> tuple[int, int, int]:
    return -trial.n_won, -trial.n_fit, trial.size_bytes


def _is_special(name: str) -> bool:
    part = TIME_CODECS.load(name)
    return is_tolerant(part) or refers(part)
