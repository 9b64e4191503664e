"""What `golden/named.json` was made from. Run it to write that file anew, where a format that was never released changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from headrace.codecs.jitter import JitterTime
from headrace.codecs.registry import value_codec
from headrace.codecs.shared_pages import encode_pages

FILE = Path(__file__).parent / "golden/named.json"
T0 = 1_750_000_000 * 10**9


def arguments() -> dict[str, tuple[dict[str, Any], np.ndarray[Any, Any]]]:
    """Name → settings and input, as formulas."""
    i = np.arange(24)
    states = np.repeat(np.array([3, 0, 3, 7], np.uint16), 6)
    ts_ns = T0 + i * 10**9 + i * i * 7 % 11 * 10**5
    return {
        "rle": ({}, states),
        "byte_planes": ({"level": 3}, np.cumsum(i % 5 - 2) / 4),
        "gorilla": ({}, np.array([12.0, 12.0, 24.0, 15.0, 12.0, 35.0, -0.0, np.inf])),
        "relative": ({"share": 0.01}, np.array([0.0, -0.0, 1.0, -1e-9, 7e12])),
        "jitter": ({"tolerance_ns": 10**6}, ts_ns),
    }


def runs() -> list[np.ndarray[Any, Any]]:
    """What the pages hold."""
    return [np.arange(n, dtype=np.int32) * n % 7 for n in (3, 1, 9)]


def encoded() -> dict[str, str]:
    """Every golden name, and what this release makes of its input."""
    out = {"pages": encode_pages(runs()).hex()}
    for name, (settings, x) in arguments().items():
        if name == "jitter":
            out[name] = JitterTime(**settings).encode(x).hex()
        else:
            out[name] = value_codec({"name": name, **settings}).encode(x).hex()
    return out


if __name__ == "__main__":
    FILE.write_text(json.dumps(encoded(), indent=1) + "\n", encoding="utf-8")
