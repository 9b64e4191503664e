"""Compaction and ageing in the background: one thread a store, behind everything else.

It rewrites what is a day old, and does what the tiers' rules want of what is older, now and then, while the engine
runs. It takes a share of one core and of the disk, and rests in between (`[store] compaction_cpu`, `compaction_io`). It
ends with the process at any moment: a run that is cut leaves nothing but files that no manifest names, and the next
run starts again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.core.clock import Clock, SystemClock
from headrace.core.config import PlantConfig, StoreSection
from headrace.core.disk import LocalDisk
from headrace.core.errors import Closed, HeadraceError
from headrace.core.faults import FaultPoints
from headrace.runtime.codec_choice import CodecChoices
from headrace.store.compactor import CompactionPolicy, CompactionReport, Compactor
from headrace.store.disks import open_disk
from headrace.store.pace import Pace
from headrace.store.query import Store
from headrace.store.rollups import Rollups
from headrace.store.tiers import TierRules


class BackgroundCompaction:
    """Runs a compactor every `period_s` of real time.

    Parameters
    ----------
    tell : called, from the thread, with a sentence where a run could not do what was due.
    rollups : what is run before it: so they have seen every segment before compaction deletes any. stopping : what ends it;
    the compactor's pace rests on it.
    """

    def __init__(
        self,
        compactor: Compactor,
        tell: Callable[[str], None],
        period_s: float = 300.0,
        rollups: Rollups | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._compactor, self._tell, self._period_s = compactor, tell, period_s
        self._rollups = rollups
        self._stopping = stopping or threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-compaction", daemon=True)
        self._said: set[str] = set()
        self.last: CompactionReport | None = None

    def start(self) -> None:
        """Start the thread; the first run comes after one period."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further run; one that is under way ends where it would rest, or with the process."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self.run_once()

    def run_once(self) -> None:
        """One run; what goes wrong is told once and tried again."""
        problems = self._try("rollups", self._roll_up) | self._try("compaction", self._compact)
        for sentence in sorted(problems - self._said):
            self._tell(sentence)
        self._said = problems

    def _roll_up(self) -> list[str]:
        return [] if self._rollups is None else self._rollups.run_once().problems

    def _compact(self) -> list[str]:
        self.last = self._compactor.run_once()
        return self.last.problems

    @staticmethod
    def _try(name: str, run: Callable[[], list[str]]) -> set[str]:
        """Sentences for what went wrong; a defect must not end collection."""
        try:
            return set(run())
        except Closed:
            return set()
        except HeadraceError as e:
            return {f"{name}: {e}"}
        except Exception as e:
            return {f"{name} stopped by a defect ({type(e).__name__}: {e}); it is tried again"}


def share_of(store: StoreSection, stopping: threading.Event) -> Pace:
    """The pace that a plant file allows; a rest ends early, with `Closed`, once `stopping` is set."""

    def rest(seconds: float) -> None:
        if stopping.wait(seconds):
            raise Closed("the engine stops; what is left is done when it runs again")

    return Pace(store.compaction_cpu, float(store.compaction_io), rest)


def compact_now(
    folder: Path, config: PlantConfig, clock: Clock | None = None, faults: FaultPoints | None = None
) -> dict[str, Any]:
    """Compact and age a store that no engine runs on, at full speed; what was done, JSON-ready.

    ``folder`` is the store's, also of one in a bucket.

    Raises
    ------
    StorageError : an engine runs on it, or the disk refuses.
    """
    clock = clock or SystemClock()
    local = LocalDisk(folder)
    local.lock()
    try:
        store = Store.open(open_disk(folder), None, clock)
        problems = []
        if config.store.rollups != "off":
            problems += Rollups(store, clock, config.plant.levels).run_once().problems
        policy = CompactionPolicy(resolutions_ns=config.store.resolutions_ns)
        done = Compactor(
            store, clock, faults=faults, policy=policy, rules=TierRules(config.tiers),
            choice_of=CodecChoices(config.codecs).of,
        ).run_once()  # fmt: skip
    finally:
        local.unlock()
    return {
        "compacted": done.n_partitions, "aged": done.n_aged, "dropped": done.n_dropped, "deleted": done.n_deleted,
        "bytes_before": done.bytes_before, "bytes_after": done.bytes_after, "problems": problems + done.problems,
    }  # fmt: skip
