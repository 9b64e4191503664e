"""A session around a plant and a port that are made by hand: order of calls, signals, failures."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import pytest

from headrace.cli import session
from headrace.cli.session import Session
from headrace.core.errors import HeadraceError, StorageError


class Recorder:
    """Plant, port and watch at once: writes down what is called."""

    def __init__(self, fails=None):
        self.calls, self.failure, self.fails = [], "", fails
        self.address = "http://127.0.0.1:1"
        self._on_failure = None

    def part(self, name):
        """`name` with the methods that a session calls of it."""
        outer = self

        class Part:
            address = outer.address
            has_page = False
            failure = property(lambda _: outer.failure)

            async def start(self):
                outer.calls.append(f"{name}.start")
                if outer.fails == name:
                    raise StorageError("the disk is full")

            async def stop(self, *_):
                outer.calls.append(f"{name}.stop")

            def on_failure(self, call):
                outer._on_failure = call

            def renew(self):
                outer.calls.append("renewed")

            @contextlib.asynccontextmanager
            async def announced(self):
                outer.calls.append("announced")
                yield
                outer.calls.append("withdrawn")

        return Part()

    def started(self, address, has_page):
        self.calls.append("started")

    def beat(self):
        self.calls.append("beat")

    def stopping(self):
        self.calls.append("stopping")

    def session(self, for_s=None):
        return Session(self.part("plant"), self.part("port"), self, for_s)


ALL = [
    "port.start", "plant.start", "announced", "started", "beat", "stopping", "plant.stop", "withdrawn", "plant.stop",
    "port.stop",
]  # fmt: skip


async def test_ends_by_itself_and_drains():
    made = Recorder()
    await made.session(0.01).run()
    assert made.calls == ALL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_asks_for_the_end(number):
    made = Recorder()
    before = signal.getsignal(number)
    made.started = lambda *_: (made.calls.append("started"), os.kill(os.getpid(), number))
    await made.session().run()
    assert made.calls == ALL
    assert signal.getsignal(number) == before


async def test_a_plant_that_ends_by_itself_is_a_failure():
    made = Recorder()

    def fail(*_):
        made.calls.append("started")
        made.failure = "another engine took over"
        asyncio.get_running_loop().call_soon(made._on_failure)

    made.started = fail
    with pytest.raises(HeadraceError, match="another engine took over"):
        await made.session().run()
    assert made.calls == ALL


async def test_a_plant_that_does_not_start_closes_its_port():
    made = Recorder(fails="plant")
    with pytest.raises(StorageError, match="the disk is full"):
        await made.session().run()
    assert made.calls == ["port.start", "plant.start", "plant.stop", "port.stop"]


class Refreshing(Recorder):
    """A plant that loads what has changed when it is hung up, and then ends."""

    def part(self, name):
        part = super().part(name)
        part.state, part.operations = "running", self
        return part

    async def refresh(self, by):
        self.calls.append(f"refresh {by}")
        os.kill(os.getpid(), signal.SIGTERM)


async def test_a_hang_up_loads_what_has_changed(monkeypatch):
    monkeypatch.setattr(session, "has_terminal", lambda: False)
    made, before = Refreshing(), signal.getsignal(signal.SIGHUP)
    made.started = lambda *_: (made.calls.append("started"), os.kill(os.getpid(), signal.SIGHUP))
    await made.session().run()
    assert [call for call in made.calls if call != "beat"] == [
        "port.start", "plant.start", "announced", "started", "renewed", "refresh SIGHUP", "stopping", "plant.stop", "withdrawn",
        "plant.stop", "port.stop",
    ]  # fmt: skip
    assert signal.getsignal(signal.SIGHUP) == before


@pytest.mark.parametrize("was_ignored", [False, True])
async def test_a_terminal_that_is_closed_ends_the_plant_unless_it_is_to_outlive_it(was_ignored, monkeypatch):
    is_there = [True, False]
    monkeypatch.setattr(session, "has_terminal", lambda: is_there.pop(0))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if was_ignored else signal.SIG_DFL)
    try:
        made = Refreshing()
        made.started = lambda *_: os.kill(os.getpid(), signal.SIGHUP)
        await made.session().run()
        assert ("refresh SIGHUP" in made.calls) == was_ignored
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_is_there_or_not(monkeypatch):
    monkeypatch.setattr(os, "open", lambda *_: os.dup(0))
    assert session.has_terminal()
    monkeypatch.undo()
    code = "import os; os.setsid(); from headrace.cli.session import has_terminal; print(has_terminal())"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
