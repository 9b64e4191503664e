"""What a probe shows to people."""

from headrace.cli.probe import sparkplug_screen
from headrace.core.clock import NO_TIME
from headrace.runtime.operations import probe_report


def test_sparkplug_nodes():
    value = {"path": "g/n/d/t", "ts_ns": 1_795_446_000_000_000_000, "value": 1.5, "quality": "bad"}
    node = {
        "node": "g/n",
        "state": "online",
        "messages": 3,
        "metrics": 2,
        "values": [value],
        "problems": ["x: why"],
    }
    values = [{**value, "ts_ns": NO_TIME, "quality": "good"}]
    other = {"node": "g/m", "state": "dead", "messages": 1, "metrics": 0, "values": values, "problems": []}
    found = {
        "messages": 9,
        "seconds": 5.0,
        "broker": "b:1883",
        "nodes": [node, other],
        "messages_of_others": 4,
    }
    assert sparkplug_screen(probe_report(found)).splitlines() == [
        "9 messages of 2 nodes and devices in 5.0 s from b:1883",
        "",
        "g/n  (3)  online, 2 metrics",
        "  g/n/d/t = 1.5  at 2026-11-23T15:00:00.000000000Z  bad",
        "  refused: x: why",
        "",
        "g/m  (1)  dead, 0 metrics",
        "  g/n/d/t = 1.5",
        "",
        "and 4 messages of others: narrow it with --node",
    ]
