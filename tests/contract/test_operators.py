"""Every registered operator passes the public kit."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.pipeline.operators.registry import OPERATORS, operator_of
from headrace.testing import operators as kit

STEPS = {
    "clamp": [{"min": 95}, {"max": 7.5}, {"min": 20, "max": 105}],
    "dead_band": [{"change": 5}, {"change": 2.5, "heartbeat": "40s"}],
    "map": [
        {"call": "operator_functions:excess", "folder": str(Path(__file__).parent)},
        {"call": "operator_functions:fails", "folder": str(Path(__file__).parent)},
    ],
    "range": [{"min": 95}, {"max": 7.5}, {"min": 20, "max": 105}],
    "scale": [{"factor": 0.001, "add": 2, "unit": "kPa"}, {"factor": -2}],
    "resample": [
        {"every": "5s", "max_gap": "40s"},
        {"every": "1s", "method": "linear"},
        {"every": "7s", "method": "step", "max_gap": "20s"},
    ],
    "sliding": [
        {"every": "20s", "size": "1m", "agg": ["count", "sum", "mean", "var", "min", "max", "first", "last"]},
        {"every": "30s", "size": "30s", "agg": ["mean"], "idle": "1s"},
        {"every": "10s", "size": "2m", "agg": ["last", "count"], "idle": "1s"},
    ],
    "time_weighted_mean": [
        {"every": "1m"},
        {"every": "20s", "method": "step", "idle": "1s"},
        {"every": "40s", "method": "linear"},
    ],
    "window": [
        {"every": "1m", "agg": ["count", "sum", "mean", "var", "min", "max", "first", "last"]},
        {"every": "20s", "agg": ["last"], "idle": "1s"},
    ],
}
CASES = [{"op": name, **keys} for name in OPERATORS.names() for keys in STEPS.get(name, [])]


def test_every_operator_has_steps_here():
    assert sorted(STEPS) == OPERATORS.names()


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("step", CASES, ids=lambda step: " ".join(f"{k}={v}" for k, v in step.items()))
def test_operator(step, check):
    check(lambda: operator_of(step, "steps[0]"))
