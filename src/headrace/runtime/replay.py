"""Replaying rejects: refused input, taken in again after what was wrong has been mended.

Each reject is decoded by the present configuration of its adapter. What is accepted now goes through the intake like
anything else, with its own time, and when it is durable the reject is taken out of the log: it is not replayed
twice. A process that dies in between replays it once more, and the frames are recognised as what is there already.
What still fails stays as it is, and is not counted as refused again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.adapters.abilities import Redecodes, RedecodesElsewhere
from headrace.adapters.base import Adapter
from headrace.core.clock import SystemClock
from headrace.core.errors import Closed, ConfigError, CorruptionError, HeadraceError, NotFound, PluginError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.ingest.intake import Intake, IntakeState
from headrace.ingest.normalize import TimePolicy, normalise
from headrace.ingest.rejects_log import Key, RejectFilter, RejectsLog, parse_reject_id

LIMIT_MAX, LIMIT_BYTES = 5_000, 64 << 20
_REASONS_MAX = 20
_LOOK_S = 1.0


_Input = tuple[str, str, bytes, int]
"""What is decoded again: adapter, source, bytes, arrival."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What became of one reject: batches to take in, or why it still fails."""

    batches: Sequence[FrameBatch]
    why: str = ""
    n_lost: int = 0
    """Samples of which a reject kept no more than that they came."""


def filter_of(document: Mapping[str, Any]) -> RejectFilter:
    """``{"adapter", "code", "from_ns", "to_ns", "ids", "after"}`` as a filter. Raises `ConfigError`."""
    ids = document.get("ids")
    try:
        return RejectFilter(
            str(document.get("adapter") or ""),
            str(document.get("code") or ""),
            _ns(document.get("from_ns")),
            _ns(document.get("to_ns")),
            None if ids is None else frozenset(parse_reject_id(str(one)) for one in ids),
            None if document.get("after") is None else parse_reject_id(str(document["after"])),
        )
    except TypeError as e:
        raise ConfigError(f"this does not say which rejects: {e}") from e


def _ns(value: Any) -> int | None:
    return None if value is None else int(value)


class RejectsReplay:
    """Replays rejects of a running plant, one request after the other.

    Parameters
    ----------
    adapter_of : an adapter by its name; raises `NotFound`.
    """

    def __init__(self, log: RejectsLog, intake: Intake, adapter_of: Callable[[str], Adapter]) -> None:
        self._log, self._intake, self._adapter_of = log, intake, adapter_of
        self._lock = asyncio.Lock()

    async def run(self, wanted: RejectFilter, limit: int, is_trial: bool) -> dict[str, Any]:
        """Replay the oldest `limit` that are meant, or fewer where these are large.

        Parameters
        ----------
        is_trial : decode and say what would come of it; nothing is taken in.

        Returns
        -------
        ``replayed``, ``samples``, ``failing``, ``reasons`` (why and how often), and ``next``: the id behind which
        to go on, None at the end.

        Raises
        ------
        StorageError : the disk refuses. Closed, Fenced : the intake has ended.
        """
        async with self._lock:
            if is_trial:
                tables = await asyncio.to_thread(self._log.tables)
            else:
                await asyncio.to_thread(self._log.save, self._intake.core.journal.durable_seq)
                tables = await asyncio.to_thread(self._log.saved)
            limit = min(limit, LIMIT_MAX)
            some = await asyncio.to_thread(tables.chosen, wanted, limit, LIMIT_BYTES)
            is_cut = len(some) == limit or sum(len(kept.reject.raw) for kept in some) >= LIMIT_BYTES
            clock = SystemClock()
            reasons: Counter[tuple[str, str, str]] = Counter()
            batches: list[FrameBatch] = []
            accepted: list[Key] = []
            n_lost = 0
            known: dict[_Input, str] = {}
            for kept in some:
                judged = await self._judge(kept.reject, known)
                batches += judged.batches
                if judged.why:
                    reasons[kept.reject.adapter, str(kept.reject.code), judged.why] += 1
                else:
                    accepted.append(kept.key)
                    n_lost += judged.n_lost
                await clock.sleep(0)  # adapters go on meanwhile
            n_samples = sum(batch.n_samples for batch in batches)
            if not is_trial:
                await self._take_in(batches)
                await asyncio.to_thread(self._log.remove, accepted)
            return {
                "replayed": len(accepted),
                "samples": n_samples,
                "samples_lost": n_lost,
                "failing": len(some) - len(accepted),
                "reasons": [
                    {"adapter": a, "code": c, "why": w, "rejects": n} for (a, c, w), n in reasons.most_common(_REASONS_MAX)
                ],
                "next": some[-1].id if is_cut else None,
                "problems": tables.problems,
            }  # fmt: skip

    async def _judge(self, reject: Reject, known: dict[_Input, str]) -> _Judged:
        """Decode a reject. Of one message several may have been refused: all have its bytes, which are decoded once."""
        try:
            frames = _frames(reject)
            if frames is not None:
                timely, why = self._timely([frames], reject.arrival_ns)
                return _Judged(timely, why, reject.n_samples - frames.n_samples)
            key = reject.adapter, reject.source, reject.raw, reject.arrival_ns
            if key in known:
                return _Judged((), known[key])
            batches, refused = await self._decode(reject)
            timely, why = self._timely(batches, reject.arrival_ns)
            known[key] = f"{refused[0].code}: {refused[0].detail}" if refused else why
            return _Judged(timely, known[key])
        except HeadraceError as e:
            return _Judged((), str(e))
        except Exception as e:  # a decoder's defect must not keep the others from being replayed
            return _Judged((), f"its decoder failed: {e!r}")

    async def _decode(self, reject: Reject) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        try:
            adapter = self._adapter_of(reject.adapter)
        except NotFound:
            raise NotFound(f"the plant has no adapter {reject.adapter!r}") from None
        if isinstance(adapter, RedecodesElsewhere):
            return await adapter.redecode_there(reject)
        if not isinstance(adapter, Redecodes):
            raise PluginError(f"adapter {reject.adapter} can't decode its input a second time")
        return adapter.redecode(reject, self._intake.directory)

    def _timely(self, batches: Sequence[FrameBatch], arrived_ns: int) -> tuple[list[FrameBatch], str]:
        """Batches whose times are taken today, and why others are not: or they would be refused once more.

        They keep the arrival that they had, which a value without a time of its own gets, today as on any other
        day; only a time that lay too far ahead then may lie in the past by now.
        """
        out, why = [], ""
        for batch in batches:
            policy = self._intake.core.settings.policies.get(batch.origin, TimePolicy())
            for arrival_ns in (arrived_ns, self._intake.clock.now_ns()):
                rejects = normalise(batch, self._intake.directory, arrival_ns, policy).rejects
                if not rejects:
                    out.append(batch.with_(arrival_ns=arrival_ns))
                    break
            else:
                why = f"{rejects[0].code}: {rejects[0].detail}"
        return out, why

    async def _take_in(self, batches: Sequence[FrameBatch]) -> None:
        """Hand batches to the intake and wait until they are durable."""
        if not batches:
            return
        landed = asyncio.Event()
        n_open = len(batches)

        def ack() -> None:
            nonlocal n_open
            n_open -= 1
            if not n_open:
                landed.set()

        for batch in batches:
            await self._intake.emit(batch, ack)
        while not landed.is_set():
            status = self._intake.status()
            if status.state in (IntakeState.FAILED, IntakeState.STOPPED):
                raise Closed(f"the intake has ended: {status.reason or 'the plant stops'}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await landed.wait()


def _frames(reject: Reject) -> FrameBatch | None:
    """Frames whose time was refused are kept as they were; None for any other reject."""
    if reject.code is not RejectCode.BAD_TIME:
        return None
    try:
        return FrameBatch.from_bytes(reject.raw).with_(origin=reject.adapter)
    except CorruptionError:
        return None
