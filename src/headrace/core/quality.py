"""Quality: one byte beside every value.

The two high bits are the class (good, uncertain, bad, absent); the low six are a closed set of sub-codes.
Classes follow OPC UA's status severity; good is 0, so that "all good" is a missing array.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Quality(IntEnum):
    """Quality of one value; `Quality.X & 0xC0` is its class."""

    GOOD = 0x00
    """As the source gave it."""
    UNCERTAIN = 0x40
    """The source says so."""
    UNCERTAIN_RANGE = 0x41
    """Outside what the source warrants."""
    UNCERTAIN_STALE = 0x42
    """Older than it should be."""
    UNCERTAIN_TIME = 0x43
    """Its time was put right, or is doubtful."""
    BAD = 0x80
    """The source says so, a function failed on it, or a result was taken back."""
    BAD_RANGE = 0x81
    """Outside the limits of its profile, or of a `range` step."""
    BAD_DEVICE = 0x82
    """The device answered with an error of its own."""
    BAD_COMMUNICATION = 0x83
    """The device could not be asked."""
    BAD_TYPE = 0x84
    """Of a type that its sensor can't take."""
    BAD_NOT_FINITE = 0x85
    """Infinite, or not a number."""
    ABSENT = 0xC0
    """No value in this frame; never a row of an answer."""


CLASS_MASK = 0xC0
USABLE_BELOW = 0x80
"""Values whose quality is below this (good or uncertain) enter aggregates."""


def usable(quality: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which values may enter aggregates: good and uncertain ones. Same shape as `quality`."""
    return quality < USABLE_BELOW


def word(quality: int) -> str:
    """The code in words: ``good``, ``bad-range``, ..."""
    try:
        return Quality(quality).name.lower().replace("_", "-")
    except ValueError:
        return Quality(quality & CLASS_MASK).name.lower() + f"-{quality & 0x3F}"
