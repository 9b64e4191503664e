"""Heavy work in a thread beside an event loop that has devices to ask.

Python runs one thread at a time, and one that computes gives way only every 5 ms. An event loop that asks devices
lets go of the interpreter at each read and write and waits so long to get it back: some dozens of devices, and their
polls come late. While heavy work goes on it is to give way sooner, which costs that work a few percent; and nothing is
to look through the whole heap for garbage, which stops everybody.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")
GIVES_WAY_S = 0.0002


async def beside(work: Callable[[], R]) -> R:
    """Do `work` in a thread that gives way often. One at a time: what changes a plant has a lock."""
    before_s, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(min(before_s, GIVES_WAY_S))
    gc.disable()
    try:
        return await asyncio.to_thread(work)
    finally:
        sys.setswitchinterval(before_s)
        if collects:
            gc.enable()
