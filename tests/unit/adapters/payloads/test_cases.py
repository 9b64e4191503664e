"""Messages and what becomes of them: the folder tests/cases/payloads."""

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest

from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.frames import Shape
from headrace.core.problems import validate_section
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory

CASES = sorted((Path(__file__).parents[3] / "cases" / "payloads").glob("*.toml"))


def samples_of(directory, batches):
    out = []
    for batch in batches:
        batch.check_columns()
        quality = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
        for frame in range(batch.n_frames):
            layout = directory.layout(int(batch.slot[frame]))
            if batch.shape is Shape.DENSE:
                cells = zip(
                    range(layout.width), batch.values[frame].tolist(), quality[frame].tolist(), strict=True
                )
            else:
                a, b = batch.start[frame], batch.start[frame + 1]
                cells = zip(
                    batch.column[a:b].tolist(), batch.values[a:b].tolist(), quality[a:b].tolist(), strict=True
                )
            for column, value, mark in cells:
                if mark != Quality.ABSENT:
                    word = batch.dictionary[value] if batch.dictionary else value
                    out.append([layout.columns[column].name, int(batch.ts_ns[frame]), word])
    return out


@pytest.mark.parametrize("file", CASES, ids=lambda p: p.stem)
@pytest.mark.parametrize("is_cut", [False, True], ids=["together", "one by one"])
def test_case(file, is_cut):
    case = tomllib.loads(file.read_text(encoding="utf-8"))
    directory = SensorDirectory()
    settings = validate_section(RuleSettings, case["rule"], "rule")
    rules = compile_rules({"plant/{device}": settings}, (), "UTC", "adapters.x.topics")
    router = MessageRouter("x", rules, DeviceGroups(directory))
    messages = [TopicMessage(m["topic"], m["payload"].encode(), i) for i, m in enumerate(case["messages"], 1)]
    found, rejects = [], []
    for part in [[m] for m in messages] if is_cut else [messages]:
        out = router.decode(part, 99)
        found += samples_of(directory, out.batches)
        rejects += [str(r.code) for r in out.rejects]
        assert all(r.adapter == "x" and r.raw == messages[r.arrival_ns - 1].payload for r in out.rejects)
        assert all(b.arrival_ns == 99 and b.origin == "x" for b in out.batches)
    found = [[k, t, "inf" if isinstance(v, float) and math.isinf(v) else v] for k, t, v in found]
    assert sorted(found, key=str) == sorted(case["samples"], key=str)
    assert sorted(rejects) == sorted(case["rejects"])
