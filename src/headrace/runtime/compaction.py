"""Compaction in the background: one thread a store, behind everything else.

It rewrites what is a day old, now and then, while the engine runs. It ends with the process at any moment: a run
that is cut leaves nothing but files that no manifest names, and the next run starts again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from headrace.core.errors import HeadraceError
from headrace.store.compactor import CompactionReport, Compactor
from headrace.store.rollups import Rollups


class BackgroundCompaction:
    """Runs a compactor every `period_s` of real time.

    Parameters
    ----------
    tell : called, from the thread, with a sentence where a run could not do what was due.
    rollups : what is run before it: so they have seen every segment before compaction deletes any.
    """

    def __init__(
        self,
        compactor: Compactor,
        tell: Callable[[str], None],
        period_s: float = 300.0,
        rollups: Rollups | None = None,
    ) -> None:
        self._compactor, self._tell, self._period_s = compactor, tell, period_s
        self._rollups = rollups
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-compaction", daemon=True)
        self._said: set[str] = set()
        self.last: CompactionReport | None = None

    def start(self) -> None:
        """Start the thread; the first run comes after one period."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further run; one that is under way goes on or ends with the process."""
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
        except HeadraceError as e:
            return {f"{name}: {e}"}
        except Exception as e:
            return {f"{name} stopped by a defect ({type(e).__name__}: {e}); it is tried again"}
