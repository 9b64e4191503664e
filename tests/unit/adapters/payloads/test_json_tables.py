"""JSON whose rows are lists: columns named by the rule, tables of columns, and what is odd in them."""

import json

import pytest
from tests.property.test_payloads import rows_of

from headrace.adapters.payloads import json as module
from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.sensors import SensorDirectory

LINES = {"columns": ("ts", "a", "b"), "time": "ts", "time_unit": "s"}


def decode(document, **rule):
    directory = SensorDirectory()
    rules = compile_rules({"t": RuleSettings(path="l/d/{key}", **rule)}, (), "UTC", "x")
    router = MessageRouter("x", rules, DeviceGroups(directory))
    out = router.decode([TopicMessage("t", json.dumps(document).encode(), 7)], 9)
    return sorted((key, ts // 10**9 if ts > 1_000 else ts, value) for key, ts, value in rows_of(directory, out.batches)), [
        (str(one.code), one.n_samples, one.detail) for one in out.rejects
    ]  # fmt: skip


def test_lines_have_the_columns_of_the_rule():
    rows, rejects = decode([[1, 1.5, True], [2, 2.5, None], [3, 3.5]], **LINES)
    assert rows == [("a", 1, 1.5), ("a", 2, 2.5), ("b", 1, 1)]
    assert rejects == [("malformed", 2, "[3, 3.5] is no list of 3: ts,a,b")]
    rows, rejects = decode([[1, 2], [3, 4]], columns=("a", "b"))
    assert (rows, rejects) == ([("a", 7, 1.0), ("a", 8, 3.0), ("b", 7, 2.0), ("b", 8, 4.0)], [])


def test_lines_with_bad_times_are_told(monkeypatch):
    rows, rejects = decode([["x", 1, 2], [2, 3, 4]], **LINES)
    assert (rows, rejects[0][:2]) == ([("a", 2, 3.0), ("b", 2, 4.0)], ("bad-time", 2))
    assert decode([["x", 1, 2]], **LINES)[0] == []
    monkeypatch.setattr(module, "N_REFUSED_MAX", 1)
    rows, rejects = decode([[1, 1, 1], ["x", 1, 2], ["x", 1, 2], ["x", 3, 4], [2, 3, 4], [3, 3, 4]], **LINES)
    assert rows == [("a", 1, 1.0), ("b", 1, 1.0)]
    assert sum(n for _, n, _ in rejects) == 10
    assert rejects[-1] == ("malformed", 4, "more than 1 mistakes; what follows was not read")


@pytest.mark.parametrize(
    ("document", "rows", "n_refused"),
    [
        ({"ts": [1, 2], "a": [3, 4], "c": 5}, [("a", 1, 3.0), ("a", 2, 4.0), ("c", 1, 5.0)], 0), ({"ts": [1, 2], "a": [3]}, [], 1),
        ({"ts": [1, 2], "a": [3], "b": [4, 5]}, [("b", 1, 4.0), ("b", 2, 5.0)], 1), ({"ts": [], "a": 1}, [], 1), ({"ts": [1], "c": 5}, [("c", 1, 5.0)], 0),
    ],
)  # fmt: skip
def test_tables_of_columns(document, rows, n_refused):
    found, rejects = decode(document, time="ts", time_unit="s")
    assert found == rows
    assert sum(n for _, n, _ in rejects) == n_refused
