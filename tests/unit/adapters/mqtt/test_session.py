"""The session against a broker that follows a script: refusals, silence, versions."""

import asyncio
import contextlib
import logging
import ssl

import numpy as np
import pytest
from gmqtt.mqtt.handler import MqttPackageHandler

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.broker import client as client_module
from headrace.adapters.broker import session as session_module
from headrace.adapters.broker.client import BrokerClient
from headrace.adapters.broker.config import BrokerAddress
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.core.errors import ConfigError
from headrace.core.problems import validate_section
from headrace.testing.adapters import RecordingSink, until

ACCEPTED_5, ACCEPTED_3 = b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x00"
CONNECT, SUBSCRIBE, PUBACK, PUBREC, PUBCOMP, DISCONNECT = 1, 8, 4, 5, 7, 14


class Script:
    """A broker that answers CONNECT and SUBSCRIBE as told; None closes, b"" says nothing."""

    def __init__(self, connack, suback=(0,), lets_go=True):
        self.connack = connack
        self.suback = suback
        self.lets_go = lets_go
        self.then = b""
        self.seen = []
        self.levels = []
        self.writers = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for writer in self.writers:
            writer.close()
        for writer in self.writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, length = await reader.readexactly(2)
                body = await reader.readexactly(length)
                self.seen.append(kind >> 4)
                if kind >> 4 == CONNECT:
                    self.levels.append(body[6])
                    answer = self.connack(body[6]) if callable(self.connack) else self.connack
                elif kind >> 4 == SUBSCRIBE:
                    codes = bytes(self.suback)
                    properties = b"\x00" if self.levels[-1] == 5 else b""
                    rest = body[:2] + properties + codes
                    answer = bytes([0x90, len(rest)]) + rest + self.then if self.suback else b""
                else:
                    answer = None if kind >> 4 == DISCONNECT and self.lets_go else b""
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def running(script, sink=None, **config):
    config = {
        "url": script.url, "version": "5", "reconnect_first": "20ms", "reconnect_most": "50ms",
        "topics": {"plant/{device}": {"path": "leon/{device}/{key}"}}, **config,
    }  # fmt: skip
    adapter = MqttAdapter.from_config(
        "b", validate_section(MqttAdapter.Config, config, "x"), {}, PlantFacts()
    )
    await adapter.start(sink or RecordingSink())
    try:
        yield adapter
    finally:
        await adapter.stop()


async def told(adapter, text, state):
    await until(lambda: text in adapter.diagnostics().reason, f"{text!r} is told")
    assert adapter.diagnostics().state is state


@pytest.mark.parametrize(
    ("connack", "reason", "state"),
    [
        (b"\x20\x03\x00\x86\x00", "refused: Bad User Name or Password", AdapterState.FAILED),
        (b"\x20\x03\x00\x89\x00", "refused: Server busy", AdapterState.FAILED),
        (None, "closed by the broker before it answered", AdapterState.BACKOFF),
        (b"\x20\x02\x00\x01", "it does not speak MQTT 5", AdapterState.FAILED),
        (b"", "it takes the connection, but no answer within 0.1 s", AdapterState.BACKOFF),
    ],
    ids=["password", "busy", "closes", "old", "silent"],
)
async def test_a_broker_that_does_not_let_us_in(monkeypatch, connack, reason, state):
    monkeypatch.setattr(client_module, "CONNECT_S", 0.1)
    async with Script(connack) as script, running(script) as adapter:
        await told(adapter, reason, state)
        await until(lambda: len(script.levels) > 2, "it is tried again")
        assert set(script.levels) == {5}


async def test_auto_goes_back_to_3_1_1_at_once():
    old = Script(lambda level: b"\x20\x02\x00\x01" if level == 5 else ACCEPTED_3)
    async with old as script, running(script, version="auto") as adapter:
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is connected")
        assert script.levels == [5, 4]


async def test_auto_tries_both_where_nobody_answers(monkeypatch):
    monkeypatch.setattr(client_module, "CONNECT_S", 0.05)
    async with Script(b"") as script, running(script, version="auto"):
        await until(lambda: len(script.levels) >= 4, "it is tried again")
        assert script.levels[:4] in ([5, 4, 5, 4], [4, 5, 4, 5]), "the first may be too late to be heard"


async def test_a_known_broker_that_falls_silent_is_not_asked_in_another_version(monkeypatch):
    monkeypatch.setattr(client_module, "CONNECT_S", 0.05)
    async with Script(ACCEPTED_5) as script, running(script, version="auto") as adapter:
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is connected")
        script.connack = b""
        script.writers[0].close()
        await until(lambda: len(script.levels) >= 4, "it is tried again")
        assert set(script.levels) == {5}


async def test_topics_that_the_broker_refuses():
    topics = {f"{t}/{{d}}": {"path": "l/{d}/{key}"} for t in "ab"}
    async with Script(ACCEPTED_5, (1, 0x87)) as script, running(script, topics=topics) as adapter:
        await told(adapter, "the broker refuses: b/+", AdapterState.DEGRADED)
        assert script.levels == [5]
    async with Script(ACCEPTED_5, (0x87, 0x87)) as script, running(script, topics=topics) as adapter:
        await told(adapter, "the broker refuses our subscriptions: a/+, b/+", AdapterState.FAILED)


async def test_no_answer_to_the_subscription(monkeypatch):
    monkeypatch.setattr(client_module, "CONNECT_S", 0.1)
    async with Script(ACCEPTED_5, ()) as script, running(script) as adapter:
        await told(adapter, "no answer to the subscription within 0.1 s", AdapterState.BACKOFF)


async def test_a_packet_id_is_acknowledged_on_its_own_connection_only():
    publish = b"\x32\x16\x00\x07plant/d\x00\x05\x00" + b'{"a": 1}' + b" "
    sink = RecordingSink(is_durable=False)
    async with Script(ACCEPTED_5) as script:
        script.then = publish[:1] + bytes([len(publish) - 2]) + publish[2:]
        async with running(script, sink) as adapter:
            await until(lambda: sink.n_samples == 1, "the message is taken")
            adapter._running.session._ended.set()
            sink.land()
            await until(lambda: len(script.levels) == 2, "it connects again")
            assert PUBACK not in script.seen


async def test_a_broker_that_sends_what_can_be_no_packet_is_left_at_once():
    async with Script(ACCEPTED_5) as script:
        script.then = b"\x30\xff\xff\xff\xff"
        async with running(script) as adapter:
            await told(adapter, "what it sends is no MQTT", AdapterState.BACKOFF)
            await until(lambda: len(script.levels) == 2, "it connects again")


async def test_a_message_of_quality_2_that_an_older_subscription_brings_is_received_once_it_is_durable():
    """PUBREC, and PUBCOMP for an answer to PUBREL; by a PUBACK a broker would wait for ever."""
    body = b"\x00\x07plant/d\x00\x05\x00" + b'{"a": 1}'
    sink = RecordingSink(is_durable=False)
    async with Script(ACCEPTED_5) as script:
        script.then = bytes([0x34, len(body)]) + body + b"\x62\x02\x00\x05"
        async with running(script, sink):
            await until(lambda: sink.n_samples == 1 and PUBCOMP in script.seen, "the message is taken")
            assert PUBREC not in script.seen
            sink.land()
            await until(lambda: PUBREC in script.seen, "it is acknowledged")
            assert PUBACK not in script.seen


async def test_a_gmqtt_of_another_make_is_told_of_before_anything_is_lost(monkeypatch):
    monkeypatch.delattr(MqttPackageHandler, "_handle_qos_1_publish_packet")
    async with Script(ACCEPTED_5) as script, running(script) as adapter:
        await told(adapter, "takes messages otherwise than 0.8", AdapterState.FAILED)
        assert not script.levels


async def test_a_topic_that_is_no_text_is_nobodys():
    body = b"\x00\x07plan\xff/d" + b"\x00" + b"1"
    sink = RecordingSink()
    async with Script(ACCEPTED_5) as script:
        script.then = bytes([0x30, len(body)]) + body
        async with running(script, sink):
            await until(lambda: bool(sink.rejects), "it is rejected")
    assert sink.rejects[0].code == "unknown-topic"
    assert sink.rejects[0].source == "plan\ufffd/d"


@pytest.mark.parametrize(("head", "answer"), [(0x32, PUBACK), (0x34, PUBREC)])
async def test_a_message_that_can_not_be_read_is_rejected_and_then_acknowledged(head, answer):
    """gmqtt passes over it; the broker would wait for its acknowledgement, and so send fewer others, for ever."""
    bad = b"\x00\x07plant/d\x00\x05\x02\x7e\x01" + b'{"a": 1}'
    good = b"\x00\x07plant/d\x00\x06\x00" + b'{"a": 2}'
    sink = RecordingSink(is_durable=False)
    async with Script(ACCEPTED_5) as script:
        script.then = bytes([head, len(bad)]) + bad + bytes([0x32, len(good)]) + good
        async with running(script, sink) as adapter:
            await until(lambda: sink.n_samples == 1 and bool(sink.rejects), "both are taken")
            assert answer not in script.seen
            sink.land()
            await until(lambda: answer in script.seen, "it is acknowledged")
            assert (adapter.diagnostics().n_rejects, len(script.levels)) == (1, 1)
            assert adapter.redecode(sink.rejects[0], sink.directory) == ([], sink.rejects)
    (reject,) = sink.rejects
    assert (reject.code, reject.adapter, reject.source) == ("malformed", "b", "")
    assert reject.raw == bytes([head, len(bad)]) + bad
    assert "a PUBLISH packet of 127.0.0.1" in reject.detail
    assert reject.detail.endswith("can't be read: its properties can't be read")


async def test_a_defect_while_connecting_is_told_and_tried_again(monkeypatch, caplog):
    async with Script(ACCEPTED_5) as script:
        whole = BrokerClient.open
        monkeypatch.setattr(BrokerClient, "open", lambda *a: 1 / 0)
        with caplog.at_level(logging.ERROR, "headrace.adapters.broker"):
            async with running(script) as adapter:
                await told(adapter, "internal error: ZeroDivisionError", AdapterState.FAILED)
                monkeypatch.setattr(BrokerClient, "open", whole)
                await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is connected")
        assert "connecting failed" in caplog.text


async def test_a_broker_that_does_not_let_go(monkeypatch):
    """Stop waits for no good-bye of a peer that keeps its end open."""
    monkeypatch.setattr(client_module, "_CLOSE_S", 0.05)
    async with Script(ACCEPTED_5, lets_go=False) as script:
        async with running(script) as adapter:
            await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is connected")
            client = adapter._running.session._client
        assert script.seen[-1] == DISCONNECT
        assert client._connection.is_closing()


async def test_a_good_bye_that_is_cut_short_closes_all_the_same():
    async with Script(ACCEPTED_5, lets_go=False) as script, running(script) as adapter:
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is connected")
        client = adapter._running.session._client
        closing = asyncio.create_task(client.close())
        await until(lambda: script.seen[-1] == DISCONNECT, "the good-bye is there")
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert client._connection.is_closing()


async def test_before_it_is_connected_a_session_takes_no_orders():
    async with Script(b"") as script, running(script) as adapter:
        await until(lambda: bool(script.levels), "it has asked to be let in")
        session = adapter._running.session
        session.acknowledge(np.array([1]))
        session.resume()
        session.pause()
        session.drop("not yet")
        await told(adapter, "not yet", AdapterState.BACKOFF)
        await session.close()
        assert not session.is_up
        session.acknowledge(np.array([1]))
        session.drop("no client")


async def test_an_adapter_that_waits_for_credit_pauses_the_next_connection_too():
    body = b"\x00\x07plant/d\x00" + b'{"a": 1}'
    sink = RecordingSink()
    sink.set_credit(False)
    async with Script(ACCEPTED_5) as script:
        script.then = bytes([0x30, len(body)]) + body
        async with running(script, sink) as adapter:
            await until(lambda: adapter._running.session._is_paused, "the first message stops the reading")
            adapter._running.session.drop("cut by the test")
            await until(lambda: len(script.levels) == 2, "it connects again")
            await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "also without credit")
            assert not adapter._running.session._client._connection._transport.is_reading()
            sink.set_credit(True)
            await until(lambda: sink.n_samples == 2, "both arrive")


def test_tls_files(monkeypatch, tmp_path):
    seen = []

    class Context:
        def load_cert_chain(self, *files):
            seen.append(files)

    monkeypatch.setattr(ssl, "create_default_context", lambda cafile: seen.append(cafile) or Context())
    cert, key, ca = (tmp_path / name for name in ("cert", "key", "ca"))
    session_module.tls_context(BrokerAddress("h", 1, True, ca, cert, key))
    assert seen == [ca, (cert, key)]
    session_module.tls_context(BrokerAddress("h", 1, True, None, None, None))
    assert seen[2:] == [None]
    monkeypatch.undo()
    ca.write_text("no certificate")
    with pytest.raises(ConfigError, match="TLS files can't be used"):
        session_module.tls_context(BrokerAddress("h", 1, True, ca, None, None))
