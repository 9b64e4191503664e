"""Arrow without pandas, for processes that need none."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

import numpy as np


def start_arrow() -> None:
    """Make Arrow's first arrays without pandas, for which it looks once; nothing of ours needs it.

    Where pandas is installed, and nobody has loaded it, a process saves half a second of CPU and 50 MB. What asks
    Arrow for a frame of pandas loads it then.
    """
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _WITHOUT_PANDAS)
    try:
        pa.array(np.zeros(1))
        pa.array([""])  # a list goes another way, which looks for itself
    finally:
        sys.meta_path.remove(_WITHOUT_PANDAS)


class _WithoutPandas(MetaPathFinder):
    """Says that pandas is not installed."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("Arrow starts without pandas", name=name)


_WITHOUT_PANDAS = _WithoutPandas()
