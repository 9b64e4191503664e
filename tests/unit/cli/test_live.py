"""What is shown of a plant that is made by hand, on a terminal and in a log."""

import logging
from collections import deque
from io import StringIO

import pytest
from rich.console import Console

from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics
from headrace.cli.live import Rate, Screen, adapter_rows, saving
from headrace.core.clock import NS, VirtualClock
from headrace.core.events import Event

NOW_NS = 1_767_225_600 * NS


class HandMadePlant:
    def __init__(self):
        self.events = deque(maxlen=3)
        self.received, self.refusal, self.samples = 1_000, "", 500

    def adapters(self):
        good = DeviceDiagnostics("a/l1/o1", AdapterState.CONNECTED, last_good_ns=NOW_NS - 2 * NS)
        bad = DeviceDiagnostics("a/l1/o2", AdapterState.BACKOFF, "refused")
        return [
            AdapterDiagnostics(
                "ovens", "modbus", AdapterState.DEGRADED, "a/l1/o2: refused", NOW_NS, 4, (good, bad), 900
            )
        ]

    def status(self):
        return {
            "sensors": 4,
            "samples": {
                "received": self.received,
                "stored": 990,
                "duplicates": 7,
                "rejected": 3,
                "thinned": 0,
            },
            "store": {"size_bytes": 1_000, "samples": self.samples},
            "journal": {"size_bytes": 2_000_000, "refusal": self.refusal},
        }


@pytest.fixture
def plant():
    return HandMadePlant()


def screen_of(plant, terminal):
    console = Console(file=StringIO(), force_terminal=terminal, width=120, highlight=False, color_system=None)
    return Screen(plant, VirtualClock(NOW_NS), "headrace run plant.toml", console), console.file


def test_a_log_has_lines_with_times(plant):
    screen, out = screen_of(plant, False)
    screen.started("http://127.0.0.1:8844")
    screen.beat()
    screen.beat()
    screen.stopping()
    screen.close()
    lines = out.getvalue().splitlines()
    assert lines[0].startswith(
        "2026-01-01T00:00:00Z headrace run plant.toml runs; it answers at http://127.0.0.1:8844"
    )
    assert "received 1,000, stored 990, duplicates 7, rejected 3, store 1 kB; ovens degraded" in lines[1]
    assert "stopping" in lines[2]
    assert len(lines) == 3
    assert "\x1b" not in out.getvalue()


def test_events_and_what_parts_log_become_lines_once(plant):
    screen, out = screen_of(plant, False)
    plant.events.append(Event(1, "store.recovered", "cut 12 bytes of a torn write"))
    plant.events.append(Event(1, "adapter.started", "adapter ovens started"))
    screen.started("http://127.0.0.1:1")
    screen.beat()
    log = logging.getLogger("headrace.adapters.modbus")
    log.warning("adapter=%s lost", "ovens")
    log.info("adapter=%s is back", "ovens")
    log.debug("adapter=%s sends", "ovens")
    for n in range(4):
        plant.events.append(Event(n, "intake.slow", f"slow {n}"))
    screen.close()
    text = out.getvalue()
    assert text.count("cut 12 bytes of a torn write") == 1
    assert "adapter ovens started" not in text
    assert "adapter=ovens lost" in text
    assert "adapter=ovens is back" in text
    assert "sends" not in text
    assert "slow 3" in text
    assert logging.getLogger("headrace").handlers == []
    assert logging.getLogger("headrace").level == logging.NOTSET


def test_a_screen_has_a_line_for_each_adapter_and_all_fates(plant):
    screen, out = screen_of(plant, True)
    screen.started("http://127.0.0.1:8844")
    plant.refusal = "can't sync journal: the disk is full; free some space"
    screen.say("adapter=ovens lost")
    screen.beat()
    text = out.getvalue()
    assert "4 sensors" in text
    assert "ovens    modbus    degraded      1/2        4      900  2.0 s ago  a/l1/o2: refused" in text
    assert "received 1,000  stored 990  duplicates 7  rejected 3  thinned 0" in text
    assert "journal 2 MB  store 1 kB  2.00 bytes a sample: 8.0 times smaller than 16" in text
    assert "the disk is full" in text
    assert "adapter=ovens lost" in text
    screen.stopping()
    screen.close()
    screen.close()
    assert out.getvalue().endswith("nothing acknowledged is lost)\n")


def test_before_the_first_flush_there_is_no_ratio(plant):
    plant.samples = 0
    assert saving(plant.status()) == ""


def test_when_the_first_stored_sample_was_seen(plant):
    screen, _ = screen_of(plant, False)
    assert screen.first_stored_ns is None
    screen.beat()
    first = screen.first_stored_ns
    screen.beat()
    assert screen.first_stored_ns == first > 0
    screen.close()


def test_rows_of_an_adapter_without_devices():
    (row,) = adapter_rows([AdapterDiagnostics("x", "mqtt", AdapterState.STARTING)], NOW_NS)
    assert row == ["x", "mqtt", "starting", "0/0", "0", "0", "never", ""]


def test_rate_forgets_what_is_long_ago(monkeypatch):
    now = [0]
    monkeypatch.setattr("headrace.cli.live.monotonic_ns", lambda: now[0])
    rate = Rate()
    assert rate.update(0) == 0.0
    for second in range(1, 21):
        now[0] = second * NS
        found = rate.update(100 * second if second < 11 else 1_000)
    assert found == 0.0
