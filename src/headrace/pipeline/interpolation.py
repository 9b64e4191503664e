"""What lies between two samples: a straight line, or the earlier value until the later one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError
from headrace.core.layouts import Kind, Layout

METHODS = ("auto", "step", "linear")


def is_step(layout: Layout, method: str) -> npt.NDArray[np.bool_]:
    """Which columns keep a value until the next one: bool[D]; ``auto`` goes by the signals' kinds."""
    if method != "auto":
        return np.full(layout.width, method == "step")
    return np.array([c.kind not in (Kind.ANALOG, Kind.WAVEFORM) for c in layout.columns])


def check_method(method: str) -> None:
    """Raise `ConfigError` where `method` is none."""
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is not one of {', '.join(METHODS)}")
