"""The contract of a store of series, ours and other databases behind connectors.

A store answers patterns over spans: raw samples or aggregates of windows. It never changes what it has given
out; a later version of a sample shows in later answers. All methods may be called from any thread and block;
they raise `NotFound` where no sensor matches, `ConfigError` for a span or aggregate that can't be, and
`StorageError` where the disk or database refuses. What can't be read is named in ``QueryResult.missing``, so
that an answer with a hole is never taken for a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from headrace.core.frames import FrameBatch

if TYPE_CHECKING:
    from headrace.store.result import QueryResult

Tail = Callable[[npt.NDArray[np.uint32]], list[FrameBatch]]
"""Unflushed frames of some slots; of two versions of a sample the one in the later batch counts."""


class SeriesStore(Protocol):
    """What can be queried."""

    def query(
        self,
        pattern: str,
        start_ns: int,
        end_ns: int,
        every_ns: int | None = None,
        agg: Sequence[str] = (),
        *,
        tail: Tail | None = None,
        limit: int | None = None,
    ) -> QueryResult:
        """Samples, or aggregates of windows, of all sensors that match.

        Parameters
        ----------
        pattern : of whole sensor paths. start_ns, end_ns : the span [start, end).
        every_ns : length of the windows, which start at its multiples since 1970 UTC; without it aggregates
            are of the whole span. agg : names of aggregates; none means raw samples.
        tail : where unflushed frames come from. limit : most rows to answer.
        """
        ...
