"""Staying in a group: what ends a consumer, and what does not; without a cluster."""

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from headrace.adapters.base import AdapterState
from headrace.adapters.kafka import session as session_module
from headrace.adapters.kafka.client import NotAdmitted, Spoilt
from headrace.adapters.kafka.config import KafkaConfig, StartAt
from headrace.adapters.kafka.session import GroupSession
from headrace.adapters.payloads.base import RuleSettings
from headrace.adapters.payloads.router import compile_rules
from headrace.core.clock import SystemClock
from headrace.core.errors import NotConnected
from headrace.testing.adapters import until


class Scripted:
    """Stands in for the client: what each pull gives or raises."""

    made = []
    pulls = []
    answers = []

    def __init__(self, settings, ledger, start, timeout_s):
        self.is_subscribed = self.is_held = self.is_closed = False
        self.complaint = ""
        self.losses = []
        Scripted.made.append(self)

    def ask(self, timeout_s):
        answer = Scripted.answers.pop(0) if Scripted.answers else ["p.a"]
        if answer is None:
            threading.Event().wait(0.002)
        return answer

    def subscribe(self, patterns):
        self.is_subscribed = True

    def pull(self):
        one = Scripted.pulls.pop(0) if Scripted.pulls else []
        if isinstance(one, Exception):
            raise one
        if isinstance(one, threading.Event):
            one.wait(20)
        elif isinstance(one, str):
            self.complaint = one
        return []

    def close(self, is_reachable):
        self.is_closed = is_reachable


@pytest.fixture
async def session(monkeypatch):
    monkeypatch.setattr(session_module, "KafkaClient", Scripted)
    Scripted.made, Scripted.pulls, Scripted.answers = [], [], []
    config = KafkaConfig(
        brokers=("h:1",), topics={}, timeout="20ms", reconnect_first="1ms", reconnect_most="2ms"
    )
    rules = compile_rules({"p/{d}": RuleSettings(path="l/{d}/{key}")}, (), "UTC", "t")
    one = GroupSession("x", config, StartAt(), rules, Path(), SystemClock())
    yield one
    await one.close()


async def ran(session, pulls, until_made):
    Scripted.pulls = pulls
    n_losses = sum(isinstance(one, Exception) for one in pulls)
    task = asyncio.ensure_future(session.run(None))
    await until(lambda: not Scripted.pulls and len(Scripted.made) == until_made, "it has come so far")
    await until(lambda: session.n_connects == 1 + n_losses, "it has connected after each loss")
    await until(lambda: session.state in (AdapterState.CONNECTED, AdapterState.DEGRADED), "it is back")
    session.finish()
    await asyncio.wait_for(task, 5)


async def test_a_loss_keeps_the_consumer(session, caplog):
    with caplog.at_level(logging.INFO, "headrace.adapters.kafka"):
        await ran(session, [NotConnected("gone")], 1)
    assert [r.getMessage().rpartition("h:1 ")[2] for r in caplog.records] == [
        "lost: gone; retrying until they answer", "are back",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [NotAdmitted("no"), Spoilt("spoilt"), ValueError("a defect of ours")])
async def test_what_spoils_a_consumer_makes_another(session, error, caplog):
    await ran(session, [error], 2)
    assert Scripted.made[0].is_closed, "it leaves the group, so that the other need not wait for it"
    assert ("internal error" in caplog.text) == isinstance(
        error, ValueError
    ) or "consuming failed" in caplog.text


async def test_silence_is_a_loss(session):
    Scripted.answers = [None] * 1_000
    task = asyncio.ensure_future(session.run(None))
    await until(lambda: session.state is AdapterState.BACKOFF, "it is told")
    assert session.reason == "h:1 does not answer within 0.02 s"
    assert session.retry_ns > 0
    session.finish()
    await asyncio.wait_for(task, 5)
    assert session.state is AdapterState.BACKOFF, "an end is no answer"


async def test_what_the_cluster_refuses_is_told_while_the_rest_goes_on(session, caplog):
    Scripted.pulls = ["no right to p.a"]
    task = asyncio.ensure_future(session.run(None))
    await until(
        lambda: session.state is AdapterState.DEGRADED and session.reason == "no right to p.a", "told"
    )
    Scripted.made[0].complaint = ""
    Scripted.made[0].losses = ["topic=p.a partition=0: messages are gone"]
    session.ledger.assign([("p.a", 0)])
    await until(lambda: session.state is AdapterState.CONNECTED, "it goes on")
    await until(lambda: not Scripted.made[0].losses, "it is told")
    assert caplog.messages == ["adapter=x topic=p.a partition=0: messages are gone"]
    assert session.n_connects == 1
    session.finish()
    await asyncio.wait_for(task, 5)


async def test_a_call_that_hangs_does_not_keep_the_end_waiting(session, monkeypatch):
    monkeypatch.setattr(session_module, "CLOSE_S", 0.05)
    gate = threading.Event()
    Scripted.pulls = [gate]
    task = asyncio.ensure_future(session.run(None))
    await until(lambda: not Scripted.pulls, "it hangs")
    session.finish()
    task.cancel()
    await asyncio.wait([task])
    await asyncio.wait_for(session.close(), 2)
    gate.set()


async def test_an_end_while_the_sink_takes_nothing(session):
    class Shut:
        is_cancelled = False

        async def hand_on(self, found):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.is_cancelled = True
                raise

    class Held(Scripted):
        def pull(self):
            return ["a message"]

        def hold(self):
            self.is_held = True

    session_module.KafkaClient, inbox = Held, Shut()
    task = asyncio.ensure_future(session.run(inbox))
    await until(lambda: session.n_holds == 1, "it is held")
    session.finish()
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: inbox.is_cancelled, "the hand-over ends")


async def test_an_end_while_nobody_answers(session):
    session._config = session._config.model_copy(update={"timeout": 60 * 10**9})
    Scripted.answers = [None] * 5_000
    task = asyncio.ensure_future(session.run(None))
    await until(lambda: len(Scripted.answers) < 5_000, "it asks")
    session.finish()
    await asyncio.wait_for(task, 5)
    assert session.state is AdapterState.STARTING
    assert not Scripted.made[0].is_subscribed
