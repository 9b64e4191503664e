"""What the quality of many chunks' samples is like, in one pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.kernels import lean_kernel
from headrace.core.quality import USABLE_BELOW, Quality
from headrace.store.schema import HAS_BAD, HAS_GOOD, HAS_UNCERTAIN

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_GOOD, _UNCERTAIN, _BAD = np.uint8(HAS_GOOD), np.uint8(HAS_UNCERTAIN), np.uint8(HAS_BAD)
_FROM_UNCERTAIN, _FROM_BAD, _FROM_ABSENT = (
    np.uint8(one) for one in (Quality.UNCERTAIN, Quality.BAD, Quality.ABSENT)
)
_USABLE_BELOW = np.uint8(USABLE_BELOW)


@lean_kernel
def look_at_marks(quality: U8, start: I64, flags: U8, usable: I64, is_marked: U8) -> None:
    """Of each chunk ``quality[start[c]:start[c + 1]]``: its classes, how many samples are usable, and whether one is not 0.

    Parameters
    ----------
    flags : filled: ``HAS_GOOD`` and so on, of `headrace.store.schema`. usable, is_marked : filled.
    """
    for c in range(len(flags)):
        part = quality[start[c] : start[c + 1]]
        any_mark, n_usable = np.uint8(0), 0
        for i in range(len(part)):
            any_mark |= part[i]
            n_usable += 1 if part[i] < _USABLE_BELOW else 0
        found = np.uint8(0)
        if any_mark == np.uint8(0):  # as most are
            found = _GOOD
        else:
            for i in range(len(part)):
                mark = part[i]
                if mark < _FROM_UNCERTAIN:
                    found |= _GOOD
                elif mark < _FROM_BAD:
                    found |= _UNCERTAIN
                elif mark < _FROM_ABSENT:
                    found |= _BAD
        flags[c], usable[c], is_marked[c] = found, n_usable, any_mark
