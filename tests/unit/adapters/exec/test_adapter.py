"""The exec adapter with programs of a line or two: restarts, intervals, silence, secrets, refusals, probes, captures."""

import asyncio
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.exec import adapter as module
from headrace.adapters.exec import probe as probe_module
from headrace.adapters.exec.adapter import ExecAdapter
from headrace.adapters.exec.child import ChildProcess
from headrace.adapters.payloads.base import PayloadError
from headrace.core.clock import NS, SystemClock
from headrace.core.errors import ConfigError, NotConnected, Overloaded, PluginError
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.problems import validate_section
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.testing.adapters import RecordingSink, until

T_NS = 1_700_000_000_000_000_000
PATH = "leon/a/{host}/{measurement}/{field}"
LINE, LAST = f"m,host=h a=1 {T_NS}", f"m,host=h a=2 {T_NS + 1}"


def adapter_of(command, folder=None, levels=(), **config):
    command = ["sh", "-c", command] if isinstance(command, str) else command
    config = {"command": command, "path": PATH, "restart_first": "10ms", "restart_most": "20ms", **config}
    settings = validate_section(ExecAdapter.Config, config, "adapters.lab")
    facts = PlantFacts(levels) if folder is None else PlantFacts(levels, folder=folder)
    return ExecAdapter.from_config("lab", settings, {}, facts)


class Running:
    """A started adapter and its sink."""

    def __init__(self, adapter, sink=None):
        self.adapter, self.sink = adapter, sink or RecordingSink()

    async def __aenter__(self):
        await self.adapter.start(self.sink)
        return self.adapter, self.sink

    async def __aexit__(self, *_):
        await self.adapter.stop()


def device_of(adapter):
    (device,) = adapter.diagnostics().devices
    return device


def test_a_path_that_can_not_be_is_told():
    with pytest.raises(ConfigError) as e:
        adapter_of("x", levels=("a", "b"), path="x/{field}/y")
    assert e.value.where == "adapters.lab.path"


# --- a life ------------------------------------------------------------------------------------------


async def test_it_is_started_again_and_the_waits_begin_anew_when_it_has_lived(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "headrace.adapters")
    async with Running(adapter_of("echo broken >&2; exit 3")) as (adapter, _):
        await until(lambda: device_of(adapter).n_errors >= 2, "it was started twice")
        assert device_of(adapter).reason == "sh ended with exit code 3: broken"
        assert adapter.diagnostics().state is AdapterState.BACKOFF
        monkeypatch.setattr(module, "STEADY_NS", 0)
        n = device_of(adapter).n_errors
        await until(lambda: device_of(adapter).n_errors > n, "and again")
    assert adapter.diagnostics().state is AdapterState.STOPPED
    assert sum("starting it again" in r.message for r in caplog.records) == 1


async def test_a_program_that_is_not_there_is_told():
    async with Running(adapter_of(["./nothing"])) as (adapter, _):
        await until(lambda: bool(device_of(adapter).reason), "told")
        assert "can't be started: No such file" in device_of(adapter).reason


async def test_with_an_interval_a_good_end_is_no_failure():
    command = f"echo '{LINE}'; printf '{LAST}'"
    async with Running(adapter_of(command, interval="30ms")) as (adapter, sink):
        await until(lambda: sink.n_samples >= 4, "two runs")
        device = device_of(adapter)
        assert (device.n_errors, adapter.diagnostics().state) == (0, AdapterState.CONNECTED)
    assert not sink.rejects


async def test_without_one_a_good_end_is_told():
    async with Running(adapter_of(f"echo; sleep 0.05; echo '{LINE}'")) as (adapter, _):
        await until(lambda: device_of(adapter).n_errors >= 2, "ended")
        assert device_of(adapter).reason == "sh ended with exit code 0"


async def test_what_comes_in_a_moment_is_taken_together(monkeypatch):
    monkeypatch.setattr(module, "SLICE_S", 10.0)
    stdout = asyncio.StreamReader()
    child = SimpleNamespace(stdout=stdout, ended=asyncio.Event())
    stdout.feed_data(b"one")
    asyncio.get_running_loop().call_later(0.02, stdout.feed_data, b"two")
    asyncio.get_running_loop().call_later(0.03, stdout.feed_eof)
    assert await adapter_of("x")._slice(child) == b"onetwo"


async def test_a_silent_program_is_started_anew():
    async with Running(adapter_of(["sleep", "60"], silent_after="30ms")) as (adapter, _):
        await until(lambda: device_of(adapter).n_errors >= 1, "ended")
        assert device_of(adapter).reason.startswith("sleep has sent nothing for 0.03 s")


async def test_what_a_program_leaves_behind_does_not_hold_it_open(monkeypatch):
    monkeypatch.setattr(module, "KILL_S", 0.05)
    async with Running(adapter_of(f"echo '{LINE}'; sleep 60 & exit 4")) as (adapter, sink):
        await until(lambda: device_of(adapter).n_errors >= 1, "its end is noticed")
        assert device_of(adapter).reason == "sh ended with exit code 4"
        assert sink.n_samples >= 1


async def test_one_that_can_not_be_killed_at_once_is_given_up(monkeypatch):
    for name in ("PATIENCE_S", "TERM_S", "KILL_S"):
        monkeypatch.setattr(module, name, 0.02)
    adapter = adapter_of("trap '' TERM; echo 'm,host=h a=1 1'; while :; do read x; done")
    async with Running(adapter) as (adapter, sink):
        await until(lambda: sink.n_samples >= 1, "it runs")
        child = adapter._running.child
        monkeypatch.setattr(ChildProcess, "kill", lambda self: None)
        await adapter.stop()
        monkeypatch.undo()
        assert child.close() < 0
    assert adapter.diagnostics().state is AdapterState.STOPPED


async def test_half_a_line_of_a_program_that_was_ended_is_a_reject():
    async with Running(adapter_of("printf 'm,host=h a=1'; kill -9 $$")) as (adapter, sink):
        await until(lambda: bool(sink.rejects), "refused")
        assert sink.rejects[0].code is RejectCode.MALFORMED
        await until(lambda: device_of(adapter).n_errors >= 1, "told")
        assert device_of(adapter).reason.startswith("sh was ended by SIGKILL")


async def test_half_a_line_of_a_program_that_fell_silent_is_a_reject():
    command = "trap 'exit 0' TERM; printf 'm,host=h a=1'; while :; do sleep 0.01; done"
    async with Running(adapter_of(command, silent_after="50ms")) as (adapter, sink):
        await until(lambda: bool(sink.rejects), "refused")
        assert (sink.rejects[0].code, sink.rejects[0].raw) == (RejectCode.MALFORMED, b"m,host=h a=1")
        await until(lambda: device_of(adapter).n_errors >= 1, "told")
        assert device_of(adapter).reason.startswith("sh has sent nothing for 0.05 s")
        assert sink.n_samples == 0


async def test_output_that_can_not_be_read_is_a_reject_and_a_new_start():
    async with Running(adapter_of("echo 'a,b'; cat", format="csv", path="a/{key}", time="ts")) as (
        adapter,
        sink,
    ):
        await until(lambda: device_of(adapter).n_errors >= 2, "started again")
        assert "no column ts" in device_of(adapter).reason
        assert sink.rejects[0].source == "stdout:1"
    async with Running(adapter_of("printf 'ARROW1'", format="arrow", path="a/{key}")) as (adapter, sink):
        await until(lambda: bool(sink.rejects), "an end within a message")
        assert "6 bytes after a whole message" in sink.rejects[0].detail


async def test_a_defect_of_ours_is_not_the_end_of_it(monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(module, "open_outlet", fail)
    async with Running(adapter_of(f"echo '{LINE}'")) as (adapter, sink):
        await until(lambda: device_of(adapter).n_errors >= 1, "told")
        assert device_of(adapter).reason == "sh reading it failed: ZeroDivisionError()"
        monkeypatch.undo()
        await until(lambda: sink.n_samples >= 1, "and read again")


async def test_it_ends_while_it_waits_to_be_stopped():
    async with Running(adapter_of("echo started >&2; trap 'exit 0' TERM; read x")) as (adapter, _):
        await until(lambda: adapter._running.stderr.last == "started", "it runs")
        await adapter.stop()
    assert device_of(adapter).n_errors == 0


async def test_the_environment_is_small_and_secrets_stay_secret(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "headrace.adapters")
    monkeypatch.setenv("LAB_PASSWORD", "s3cret")
    monkeypatch.setenv("LC_ALL", "C")
    env = {"BAUD": "9600", "PASSWORD": {"env": "LAB_PASSWORD"}}
    command = 'echo "$PASSWORD is $BAUD $LAB_PASSWORD.$LC_ALL" >&2; exit 1'
    async with Running(adapter_of(command, env=env)) as (adapter, _):
        await until(lambda: device_of(adapter).n_errors >= 1, "ended")
        assert device_of(adapter).reason == "sh ended with exit code 1: *** is 9600 .C"
    assert "s3cret" not in caplog.text
    async with Running(adapter_of("true", env={"A": {"env": "NOT_THERE"}})) as (adapter, _):
        await until(lambda: "NOT_THERE" in device_of(adapter).reason, "told")


# --- a sink that takes nothing -----------------------------------------------------------------------


async def test_what_is_not_taken_is_offered_again(monkeypatch, caplog):
    monkeypatch.setattr(module, "_REFUSED_FIRST_NS", NS // 100)

    class Full(RecordingSink):
        n = 0

        async def emit(self, batch, ack=None):
            self.n += 1
            if self.n < 3:
                raise Overloaded("full", 1.0)
            await super().emit(batch, ack)

    sink = Full()
    async with Running(adapter_of(f"echo '{LINE}'; echo bad; cat"), sink) as (adapter, _):
        await until(lambda: "not taken: full" in device_of(adapter).reason, "told")
        await until(lambda: sink.n_samples == 1 and len(sink.rejects) == 1, "taken")
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it says so")
    assert sum("is not taken" in r.message for r in caplog.records) == 1


async def test_frames_that_are_refused_for_ever_become_a_reject(caplog):
    class Refusing(RecordingSink):
        async def emit(self, batch, ack=None):
            raise PluginError("no such slot")

        async def reject(self, reject, ack=None):
            await super().reject(reject, ack)
            if reject.code is RejectCode.MALFORMED:
                raise PluginError("nor that")

    sink = Refusing()
    command = f"echo '{LINE}'; echo bad; sleep 0.05; echo worse; cat"
    async with Running(adapter_of(command), sink) as (adapter, _):
        await until(lambda: len(sink.rejects) >= 3, "refused")
        assert adapter.diagnostics().n_rejects == 3, "those that nobody keeps are counted"
    assert {r.code for r in sink.rejects} == {RejectCode.INTERNAL, RejectCode.MALFORMED}
    told = [r.message for r in caplog.records if "is not kept" in r.message]
    assert len(told) == 1, "it is told once"
    assert "malformed of stdout:2" in told[0]
    assert told[0].endswith(": nor that")


async def test_without_credit_it_is_put_off():
    sink = RecordingSink()
    sink.set_credit(False)
    async with Running(adapter_of(f"echo '{LINE}'; cat"), sink) as (adapter, _):
        await until(lambda: device_of(adapter).n_polls_skipped == 1, "counted")
        sink.set_credit(True)
        await until(lambda: sink.n_samples == 1, "taken")
        assert adapter.diagnostics().n_bytes == len(LINE) + 1


# --- decoded again -----------------------------------------------------------------------------------


def test_refused_lines_are_decoded_again():
    adapter, directory = adapter_of("x"), SensorDirectory()
    line = Reject(RejectCode.MALFORMED, "lab", "stdout:3", "", LINE.encode(), T_NS)
    batches, rejects = adapter.redecode(line, directory)
    assert [r.value for b in batches for r in readings(b, directory)] == [1.0]
    assert not rejects
    for odd, why in (
        (replace(line, source="stdout batch 1"), "no line of it was kept"), (replace(line, raw=b""), "no line"),
        (replace(line, raw=b"x" * MAX_RAW_BYTES), "only the first"),
    ):  # fmt: skip
        assert why in adapter.redecode(odd, directory)[1][0].detail
    table = adapter_of("x", format="csv", path="a/{key}", time="ts")
    assert "no column ts" in table.redecode(replace(line, raw=b"a,b\n1,2"), directory)[1][0].detail
    assert "no line" in adapter_of("x", format="arrow", path="a/{key}").redecode(line, directory)[1][0].detail


async def test_they_are_decoded_again_while_it_runs():
    async with Running(adapter_of(f"echo '{LINE}'; cat")) as (adapter, sink):
        await until(lambda: sink.n_samples == 1, "it runs")
        line = Reject(RejectCode.MALFORMED, "lab", "stdout:3", "", LINE.encode(), T_NS)
        assert adapter.redecode(line, sink.directory)[0][0].n_samples == 1


# --- captures ----------------------------------------------------------------------------------------


CSV = "echo ts,a; echo 1700000000,1; printf '17000'; read x; echo 00001,2; read x; echo 1700000002,3; printf 1700000003,4"


async def test_what_is_heard_gives_the_same_again(tmp_path):
    os_fifo = tmp_path / "go"
    command = CSV.replace("read x", f"while [ ! -e {os_fifo}$n ]; do sleep 0.01; done; n=1")
    adapter = adapter_of(command, format="csv", path="a/{key}", time="ts")
    heard = []
    async with Running(adapter) as (adapter, sink):
        await until(lambda: sink.n_samples == 1, "the first")
        adapter.listen(heard.append)
        os_fifo.touch()
        await until(lambda: sink.n_samples == 2, "the second")
        (tmp_path / "go1").touch()
        await until(lambda: any("exit" in one.about for one in heard), "all of it")
        await until(lambda: sink.n_samples >= 4, "with the last")
    directory = SensorDirectory()
    batches, rejects = adapter.decode_captured(heard, directory)
    assert [r.value for b in batches for r in readings(b, directory)][:3] == [2.0, 3.0, 4.0]
    assert not rejects
    broken = [replace(heard[0], data=b"a,b\n1,2\n"), heard[0]]
    _, (reject,) = adapter.decode_captured(broken, SensorDirectory())
    assert "no column ts" in reject.detail


# --- probes ------------------------------------------------------------------------------------------


async def test_a_probe_runs_the_program_once(monkeypatch):
    clock = SystemClock()
    found = await adapter_of(f"echo hello >&2; echo '{LINE}'; echo bad; printf '{LAST}'").probe({}, clock)
    assert found["facts"][1:] == [["state", "ended with exit code 0"], ["says", "hello"]]
    assert [row[2] for row in found["table"]["rows"]] == [1.0, 2.0, None]
    found = await adapter_of(f"echo '{LINE}'; cat").probe({"for": "60ms"}, clock)
    assert found["facts"][1] == ["state", "still running"]
    assert len(found["table"]["rows"]) == 1
    monkeypatch.setattr(probe_module, "VALUES_MAX", 1)
    found = await adapter_of("while :; do echo 'm,host=h a=1'; done").probe({}, clock)
    assert len(found["table"]["rows"]) == 1


async def test_a_probe_tells_what_can_not_be_read(monkeypatch):
    clock = SystemClock()
    found = await adapter_of("echo a,b; cat", format="csv", path="a/{key}", time="ts").probe({}, clock)
    assert "no column ts" in found["table"]["rows"][0][3]
    found = await adapter_of("printf x", format="arrow", path="a/{key}").probe({}, clock)
    assert "after a whole message" in found["table"]["rows"][0][3]
    with pytest.raises(NotConnected, match="can't be started"):
        await adapter_of(["./nothing"]).probe({}, clock)
    with pytest.raises(ConfigError, match="did you mean"):
        await adapter_of("x").probe({"fo": "1s"}, clock)
    with pytest.raises(ConfigError, match="at most 60s"):
        await adapter_of("x").probe({"for": "61s"}, clock)

    def refuse(*_):
        raise PayloadError(RejectCode.INTERNAL, "JSON needs a library")

    monkeypatch.setattr(module, "open_outlet", refuse)
    with pytest.raises(ConfigError, match="needs a library"):
        await adapter_of("x").probe({}, clock)


async def test_a_probe_listens_to_the_program_that_runs(monkeypatch):
    command = ["sh", "-c", f"while :; do echo '{LINE}'; sleep 0.01; done"]
    async with Running(adapter_of(command)) as (adapter, sink):
        await until(lambda: sink.n_samples >= 1, "it runs")
        found = await adapter.probe({"for": "50ms"}, sink.clock)
        assert found["facts"][1] == ["state", "still running"]
        assert found["table"]["rows"][0][:1] == ["leon/a/h/m/a"]
        monkeypatch.setattr(probe_module, "VALUES_MAX", 1)
        await asyncio.wait_for(adapter.probe({}, sink.clock), 4.0)
        assert device_of(adapter).n_requests == 1
