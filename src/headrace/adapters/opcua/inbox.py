"""Between the sessions and the sink: values of a short slice of time, filed together, acknowledged together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
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
    filed: Filed = field(default_factory=Filed)
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
        self._settled: deque[_Gathered] = deque()
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._n_waiting = 0
        self._finishing = False
        self._n_added = 0
        self._open: dict[int, int] = {}
        self.last_good_ns = np.full(len(tags.plans), NO_TIME)
        self.n_lost = 0
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
            self.settle()
            while self._settled:
                gathered = self._settled.popleft()
                try:
                    await self._hand_on(gathered)
                except Exception as e:
                    self._refused(gathered, str(e) or repr(e))
                self._n_waiting -= sum(len(values) for values in gathered.values)
            if self._finishing:
                return

    def settle(self) -> None:
        """Make frames of what has been gathered, by the tags as they are."""
        gathered, self._gathered = self._gathered, _Gathered()
        try:
            if gathered.values:
                self._file(gathered)
            self._settled.append(gathered)
        except Exception as e:
            self._refused(gathered, str(e) or repr(e))
            self._n_waiting -= sum(len(values) for values in gathered.values)

    def _file(self, gathered: _Gathered) -> None:
        cpu_ns, now_ns = thread_cpu_ns(), self._sink.clock.now_ns()
        filed = gathered.filed = self._filing.file(joined(gathered.values), now_ns)
        self.decode_ns += thread_cpu_ns() - cpu_ns
        self.n_repeats += filed.n_repeats
        self.n_lost += len(filed.lost)
        self.last_good_ns[self._tags.device[filed.good]] = now_ns

    def renumber(self, places: Sequence[int]) -> None:
        """There are other devices: the place that each had before, -1 for a new one."""
        self.last_good_ns = np.append(self.last_good_ns, NO_TIME)[list(places)]

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
        batches, rejects = gathered.filed.batches, [*gathered.rejects, *gathered.filed.rejects]
        ack = self._counted(gathered, len(batches) + len(rejects))
        for batch in batches:
            await self._sink.emit(batch.with_(sequence=self._sequence), ack)
            self._sequence += 1
            self.n_frames += batch.n_frames
            self.n_samples += batch.n_samples
        for reject in rejects:
            await self._sink.reject(reject, ack)
            self.n_rejects += 1

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
