"""What a probe found, shown for people, whatever the protocol; and what it is asked."""

import click
import pytest

from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.cli.probe import _pairs, plain_screen, sparkplug_screen
from headrace.core.clock import NO_TIME
from headrace.runtime.catalogue import Scheme, schemes
from headrace.runtime.operations import probe_report


def test_facts_then_table_with_numbers_flush_right():
    found = {
        "protocol": "scale", "facts": [["scale", "hall 3"], ["ok", True]],
        "table": {
            "columns": ["cell", "grams", "ts_ns"],
            "rows": [["a", 12.5, 1_767_225_600_000_000_000], ["bb", 1000, None]],
        },
    }  # fmt: skip
    lines = click.unstyle(plain_screen(probe_report(found))).splitlines()
    assert lines == [
        "scale  hall 3", "ok     true", "", "cell  grams  ts",
        "a      12.5  2026-01-01T00:00:00.000000000Z", "bb     1000  -",
    ]  # fmt: skip


def test_without_facts_all_that_was_found_is_shown():
    assert plain_screen({"protocol": "x", "n": 3, "names": ["a"]}) == 'n      3\nnames  ["a"]'
    assert click.unstyle(plain_screen({"table": {"columns": ["a"], "rows": []}})) == "a"


def test_any_word_of_a_protocol_can_be_asked(capsys):
    assert _pairs(("node=ns=2;s=Line1", "depth=")) == {"node": "ns=2;s=Line1", "depth": ""}
    for wrong in ("node", "=x"):
        with pytest.raises(click.UsageError, match="KEY=VALUE"):
            _pairs((wrong,))
    code = run_command(["adapters", "probe", "--url", "mqtt://127.0.0.1:1", "-o", "colour=red"])
    assert code == Exit.CONFIG
    assert "knows no 'colour'" in capsys.readouterr().err


def test_urls_are_told_apart_by_the_manifests(capsys):
    found = schemes()
    assert found["modbus+tcp"] == Scheme("modbus", lends=True)
    assert found["mqtts"] == Scheme("mqtt", lends=False)
    assert run_command(["adapters", "probe", "--url", "ftp://x"]) == Exit.CONFIG
    assert "mqtt, mqtts" in capsys.readouterr().err


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
