"""Between the sessions and the sink: values of a short slice of time, filed together, acknowledged together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from headrace.adapters.base import Ack, Sink
from headrace.adapters.opcua.filing import Filed, Filing, joined
from headrace.adapters.opcua.messages import Values
from headrace.adapters.opcua.tags import TagTable
from headrace.core.clock import NO_TIME, thread_cpu_ns
from headrace.core.events import Reject

SLICE_S = 0.02
N_WAITING_MAX = 200_000


@dataclass(slots=True)
class _Gathered:
    """What came in a slice of time."""

    values: list[Values] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    refusals: list[Callable[[str], None]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    n_open: int = 0


class ValueInbox:
    """Takes values from the sessions and hands their frames to the sink.

    Parameters
    ----------
    slice_s : how long values are gathered, in real seconds; a bound on latency.
    """

    def __init__(
        self, name: str, sink: Sink, tags: TagTable, filing: Filing, slice_s: float = SLICE_S
    ) -> None:
        self._name = name
        self._sink = sink
        self._tags = tags
        self._filing = filing
        self._slice_s = slice_s
        self._gathered = _Gathered()
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._n_waiting = 0
        self._finishing = False
        self._n_added = 0
        self._open: dict[int, int] = {}
        self.last_good_ns = np.full(len(tags.plans), NO_TIME)
        self.n_lost = np.zeros(len(tags.plans), np.int64)
        self.n_frames = 0
        self.n_samples = 0
        self.n_rejects = 0
        self.n_repeats = 0
        self.decode_ns = 0

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the sink that no more should be asked for."""
        return self._n_waiting >= N_WAITING_MAX

    @property
    def unacknowledged(self) -> tuple[int, int]:
        """How many answers are taken and not yet durable, and when the oldest of them came (or `NO_TIME`)."""
        return len(self._open), next(iter(self._open.values()), NO_TIME)

    def add(self, values: Values, ack: Ack, refused: Callable[[str], None]) -> None:
        """Take values. `ack` runs once they are durable; `refused`, with the reason, where the sink won't have them."""
        self._n_added += 1
        self._open[self._n_added] = self._sink.clock.now_ns()
        self._gathered.values.append(values)
        self._gathered.numbers.append(self._n_added)
        self._gathered.acks.append(ack)
        self._gathered.refusals.append(refused)
        self._n_waiting += len(values)
        self._start_timer()

    def reject(self, reject: Reject) -> None:
        """Take what can't be read."""
        self._gathered.rejects.append(reject)
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._slice_s, self._ready.set)

    async def run(self) -> None:
        """Hand on what was gathered, slice by slice, until `finish` is called."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            gathered, self._gathered = self._gathered, _Gathered()
            try:
                await self._hand_on(gathered)
            except Exception as e:
                self._refused(gathered, str(e) or repr(e))
            self._n_waiting -= sum(len(values) for values in gathered.values)
            if self._finishing:
                return

    def finish(self) -> None:
        """Hand on the rest at once; `run` returns when that is done."""
        self._finishing = True
        self._ready.set()

    def _refused(self, gathered: _Gathered, reason: str) -> None:
        """Nothing is acknowledged, and what comes again is not taken for a repeat."""
        self._tags.forget()
        self._close(gathered)
        for refuse in gathered.refusals:
            refuse(f"values are not taken: {reason}")

    async def _hand_on(self, gathered: _Gathered) -> None:
        filed = Filed()
        if gathered.values:
            cpu_ns = thread_cpu_ns()
            filed = self._filing.file(joined(gathered.values), self._sink.clock.now_ns())
            self.decode_ns += thread_cpu_ns() - cpu_ns
        rejects = [*gathered.rejects, *filed.rejects]
        ack = self._counted(gathered, len(filed.batches) + len(rejects))
        for batch in filed.batches:
            await self._sink.emit(batch.with_(sequence=self._sequence), ack)
            self._sequence += 1
            self.n_frames += batch.n_frames
            self.n_samples += batch.n_samples
        for reject in rejects:
            await self._sink.reject(reject, ack)
            self.n_rejects += 1
        self.n_repeats += filed.n_repeats
        self.last_good_ns[self._tags.device[filed.good]] = self._sink.clock.now_ns()
        np.add.at(self.n_lost, self._tags.device[filed.lost], 1)

    def _counted(self, gathered: _Gathered, n_parts: int) -> Ack:
        """An ack to give with each of `n_parts`: the last one that runs acknowledges everything."""
        gathered.n_open = max(1, n_parts)

        def ack() -> None:
            gathered.n_open -= 1
            if not gathered.n_open:
                self._close(gathered)
                for one in gathered.acks:
                    one()

        if not n_parts:
            ack()
        return ack

    def _close(self, gathered: _Gathered) -> None:
        for number in gathered.numbers:
            self._open.pop(number, None)
