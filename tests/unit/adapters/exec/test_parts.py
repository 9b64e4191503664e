"""The exec adapter's parts: what a program writes, its standard error, its configuration, its end."""

import asyncio
import io
import logging
import os
import runpy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from headrace.adapters.exec import child as child_module
from headrace.adapters.exec import simulator, stderr_log
from headrace.adapters.exec.arrow_messages import ArrowMessages, BrokenStream
from headrace.adapters.exec.child import ChildProcess, how_it_ended
from headrace.adapters.exec.config import ExecConfig
from headrace.adapters.exec.outlet import BadOutput, open_outlet
from headrace.adapters.exec.stderr_log import HiddenSecrets, StderrLog
from headrace.adapters.payloads.chunks import LineFormats
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_rules import LineRule, compile_paths
from headrace.core.problems import InvalidConfig, validate_section
from headrace.core.sensors import SensorDirectory

T_NS = 1_700_000_000_000_000_000
ENVIRONMENT = {"PATH": os.environ["PATH"]}


# --- configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"command": [""]}, "command names a program first"), ({"command": ["a", "\0"]}, "no part has a NUL"),
        ({"command": ["a"], "env": {"1": "x"}}, "is no environment variable"), ({"command": []}, "it needs 1 at least"),
        ({"command": ["a"], "env": {"A": "\0"}}, "is no environment variable"),
    ],
)  # fmt: skip
def test_configurations_that_can_not_be(config, why):
    with pytest.raises(InvalidConfig, match=why):
        validate_section(ExecConfig, config, "x")


def test_a_program_lies_in_its_folder_or_in_path():
    assert ExecConfig(command=("./a", "b")).argv(Path("/f")) == ("/f/a", "b")
    assert ExecConfig(command=("python3",)).argv(Path("/f")) == ("python3",)


# --- lines -------------------------------------------------------------------------------------------


def outlet_of(kind, **rule):
    directory = SensorDirectory()
    formats = LineFormats("x", directory, DeviceGroups(directory), (), "UTC")
    settings = LineRule(**rule)
    return open_outlet(formats, settings, compile_paths(settings, (), (), kind == "lines"), kind)


def fed(outlet, *parts, end=None):
    """Samples, and rejects as (code, source, samples)."""
    decoded = [one for data in parts for one in outlet.feed(data, T_NS)]
    if end is not None:
        decoded += outlet.finish(T_NS, end)
    samples = sum(b.n_samples for one in decoded for b in one.batches)
    return samples, [(str(r.code), r.source, r.n_samples) for one in decoded for r in one.rejects]


def test_lines_come_in_pieces():
    outlet = outlet_of("lines", path="a/{measurement}/{field}")
    assert fed(outlet, b"m a=1", b",b=2 1\nm a", b"=3 2\n") == (3, [])
    assert fed(outlet, b"m a=4 3", end=True) == (1, [])
    assert fed(outlet, end=True) == (0, [])
    assert fed(outlet_of("lines", path="a/{measurement}/{field}"), b"m a=1", end=False) == (
        0,
        [("malformed", "stdout:1", 1)],
    )


def test_a_line_that_never_ends_is_refused_and_skipped(monkeypatch):
    monkeypatch.setattr("headrace.adapters.exec.outlet.LINE_BYTES_MAX", 20)
    outlet = outlet_of("json", path="a/{key}", time="ts")
    assert fed(outlet, b"x" * 15, b"y" * 15, b"zz", b'z\n{"ts": 1, "a": 1}\n') == (
        1,
        [("too-large", "stdout:1", 1)],
    )


def test_columns_that_can_not_be_end_the_program():
    outlet = outlet_of("csv", path="a/{key}", time="ts")
    with pytest.raises(BadOutput, match="no column ts"):
        fed(outlet, b"a,b\n1,2\n")
    outlet = outlet_of("csv", path="a/{key}", time="ts")
    assert fed(outlet, b"ts,a\n1700000000,1\n17") == (1, [])
    assert outlet.context == b"ts,a\n17"


# --- Arrow -------------------------------------------------------------------------------------------


def stream_of(*batches, schema=None):
    out = io.BytesIO()
    with pa.ipc.new_stream(out, schema or batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return out.getvalue()


def batch_of(n, first=0):
    ts = pa.array([T_NS + i for i in range(first, first + n)], pa.timestamp("ns", "UTC"))
    return pa.record_batch(
        {"ts": ts, "a": [float(i) for i in range(n)], "s": pa.array(["x"] * n).dictionary_encode()}
    )


def test_a_stream_comes_in_pieces_and_another_may_follow():
    data = stream_of(batch_of(3), batch_of(2, 3)) + stream_of(batch_of(1, 9))
    outlet = outlet_of("arrow", path="a/{key}")
    assert fed(outlet, *(data[i : i + 7] for i in range(0, len(data), 7)), end=True) == (12, [])
    one, other, half = outlet_of("arrow", path="a/{key}"), outlet_of("arrow", path="a/{key}"), len(data) // 2
    n, _ = fed(one, data[:half])
    assert n + fed(other, one.context + data[half:])[0] == 12


@pytest.mark.parametrize("has_deltas", [False, True])
def test_dictionaries_take_the_place_of_those_before(has_deltas):
    out, words = io.BytesIO(), []
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=has_deltas)
    schema = pa.schema({"w": pa.dictionary(pa.int32(), pa.string())})
    with pa.ipc.new_stream(out, schema, options=options) as writer:
        for i in range(40):
            words.append("x" * 100 + str(i))
            array = pa.DictionaryArray.from_arrays(pa.array([i], pa.int32()), pa.array(words))
            writer.write_batch(pa.record_batch([array], schema))
    messages = ArrowMessages()
    found = [batch.column(0).to_pylist() for batch in messages.feed(out.getvalue())]
    assert found == [[word] for word in words]
    assert len(messages.context) < 40 * 130 + 40 * 250 * has_deltas + 1_000


def test_a_stream_that_is_cut_is_told():
    data = stream_of(batch_of(3))
    outlet = outlet_of("arrow", path="a/{key}")
    with pytest.raises(BadOutput, match="bytes after a whole message"):
        fed(outlet, data[:-20], end=True)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"ts,a\n1,2\n", "expected an Arrow IPC stream"), (b"\xff" * 4 + b"\x01\0\0\0", "metadata of 1 bytes"),
        (b"\xff" * 4 + b"\x10\0\0\0" + b"\xff" * 16, "metadata that can't be read"),
        (b"\xff" * 4 + b"\x10\0\0\0" + b"\x04\0\0\0" + b"\x10\0\0\0" + b"\0" * 8, "metadata that can't be read"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_stream(data, why):
    with pytest.raises(BrokenStream, match=why):
        list(ArrowMessages().feed(data))
    with pytest.raises(BadOutput):
        fed(outlet_of("arrow", path="a/{key}"), data)


def schema_size(data):
    return 8 + int.from_bytes(data[4:8], "little")


def test_messages_that_are_damaged(monkeypatch):
    data = stream_of(batch_of(3))
    plain = pa.record_batch({"a": [1.0, 2.0]})
    schema = len(stream_of(schema=plain.schema)) - 8
    with pytest.raises(BrokenStream, match="before any schema"):
        list(ArrowMessages().feed(stream_of(plain)[schema:]))
    broken = stream_of(pa.record_batch({"a": ["xyz", "é"]}))
    at = broken.index("xyzé".encode())
    with pytest.raises(BrokenStream, match="can't be read"):
        list(ArrowMessages().feed(broken[:at] + b"xyz\xff\xfe" + broken[at + 5 :]))
    metadata = bytearray(data[schema_size(data) :])
    table = 8 + int.from_bytes(metadata[8:12], "little")
    header = table - int.from_bytes(metadata[table : table + 4], "little", signed=True) + 8
    metadata[header : header + 2] = b"\xff\xff"
    with pytest.raises(BrokenStream, match="a dictionary that can't be read"):
        list(ArrowMessages().feed(data[: schema_size(data)] + metadata))
    limit = "headrace.adapters.exec.arrow_messages.MESSAGE_BYTES_MAX"
    monkeypatch.setattr(limit, len(stream_of(schema=batch_of(1).schema)))
    with pytest.raises(BrokenStream, match="dictionaries of more than"):
        list(ArrowMessages().feed(data))
    with pytest.raises(BrokenStream, match="a message of"):
        list(ArrowMessages().feed(stream_of(pa.record_batch({"a": [0.5] * 200}))))


def test_a_table_without_a_time_is_a_reject():
    assert fed(outlet_of("arrow", path="a/{key}"), stream_of(pa.record_batch({"a": [1.0, 2.0]}))) == (
        0,
        [("malformed", "stdout batch 1", 2)],
    )
    batch = pa.record_batch({"ts": pa.array([T_NS, None], pa.timestamp("ns", "UTC")), "a": [1.0, 2.0]})
    assert fed(outlet_of("arrow", path="a/{key}"), stream_of(batch)) == (
        1,
        [("bad-time", "stdout batch 1", 1)],
    )


# --- standard error ----------------------------------------------------------------------------------


async def test_standard_error_is_told_within_bounds(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "headrace.adapters")
    now = [0]
    monkeypatch.setattr(stderr_log, "monotonic_ns", lambda: now[0])
    log, reader = StderrLog("lab"), asyncio.StreamReader()
    reader.feed_data(b"hello s3cret\n \n\xff\x1b[1m\n" + b"x" * 9_000)
    reader.feed_eof()
    await log.listen(reader, ("s3cret",))
    assert [r.message for r in caplog.records][:2] == [
        "adapter=lab: its program says: hello ***", "adapter=lab: its program says: � [1m",
    ]  # fmt: skip
    assert log.last == "x" * stderr_log.CHARACTERS_MAX
    reader = asyncio.StreamReader()
    reader.feed_data(b"line\n" * 20)
    reader.feed_eof()
    await log.listen(reader, ())
    assert (len(caplog.records), log.n_left_out) == (10, 13)
    now[0] = stderr_log.WINDOW_NS + 1
    for _ in range(2):
        reader = asyncio.StreamReader()
        reader.feed_data(b"last")
        reader.feed_eof()
        await log.listen(reader, ())
        now[0] *= 3
    assert [r.message for r in caplog.records][10:] == [
        "adapter=lab: its program said 13 lines more", *["adapter=lab: its program says: last"] * 2,
    ]  # fmt: skip


PEM = "-----BEGIN KEY-----\nMIIabcdefgh\nxyz=\n-----END KEY-----"


@pytest.mark.parametrize(
    ("secrets", "said", "shown"),
    [
        (("s3cret-word",), "it is s3cr\net-word\nand s3cret-word.", "it is ***|***|and ***."),
        (("s3cret-word",), "s3\ncret-wo\nrd, s3\n", "s3|***|rd, s3|"),
        (("s3cret-word", "s3cret"), "s3cret-word s3cret\rs3cret-\r\nword", "*** ***\r***|***"),
        (("abc",), "xabcx\nab\nc", "x***x|ab|c"),
        ((PEM,), f"key: {PEM} is bad", "key: ***|***|***|*** is bad"),
        ((PEM,), repr(PEM), "'***\\n***\\n***\\n***'"),
        ((PEM,), "  | MIIabcdefgh\n  | xyz=\n  | MIIab", "| ***|| ***|| ***"),
        (("aaaaaa",), "aaaaaaaaaaaaaaab\naaaa\naaa", "******aaab|***|aaa"),
        ((), "-----BEGIN", "-----BEGIN"),
    ],
)
def test_secrets_are_hidden_in_every_line_of_them(secrets, said, shown):
    hidden = HiddenSecrets(secrets)
    assert "|".join(hidden.taken_out(line) for line in said.split("\n")) == shown


async def test_a_secret_is_hidden_where_a_line_is_cut(caplog):
    """Also one that is longer than what is kept of a line, or of characters of several bytes."""
    caplog.set_level(logging.INFO, "headrace.adapters")
    for secret in ("k" * 3_000, "clé\u20ac" * 500):
        for before in ("", *(f"{'é' * n} " for n in range(390, 400))):
            log, reader = StderrLog("lab"), asyncio.StreamReader()
            data = f"{before}{secret} and more\n".encode()
            for at in range(0, len(data), 1_000):
                reader.feed_data(data[at : at + 1_000])
            reader.feed_eof()
            await log.listen(reader, (secret,))
            assert log.last == f"{before}***"[:400]


# --- processes ---------------------------------------------------------------------------------------


def test_how_programs_end():
    assert how_it_ended(3) == "ended with exit code 3"
    assert how_it_ended(-9) == "was ended by SIGKILL"
    assert how_it_ended(-200) == "was ended by signal 200"


async def test_a_child_that_will_not_end_is_killed_with_its_own():
    child = await ChildProcess.start(
        (sys.executable, "-S", simulator.__file__, "stay"), Path("/"), ENVIRONMENT
    )
    line = (await child.stdout.readline()).decode()
    its_own = int(line.partition("child=")[2].partition("i")[0])
    await child.end(0.02, 0.02)
    assert child.ended.is_set()
    assert child.close() == -signal.SIGKILL
    assert child.close() == -signal.SIGKILL
    child.kill()
    for _ in range(200):
        stat = Path(f"/proc/{its_own}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("what it has started still runs")


async def test_a_child_whose_pipes_can_not_be_read_is_ended(monkeypatch):
    async def refuse(self, reader, pipe):
        raise OSError(24, "too many")

    monkeypatch.setattr(ChildProcess, "_connect", refuse)
    with pytest.raises(OSError, match="too many"):
        await ChildProcess.start(("sleep", "60"), Path("/"), ENVIRONMENT)


async def test_a_child_that_hangs_in_the_kernel_is_left(monkeypatch):
    child = await ChildProcess.start(("true",), Path("/"), ENVIRONMENT)
    await child.ended.wait()
    monkeypatch.setattr(child_module, "KILLED_S", 0.0)
    process = child._process
    real = process.wait
    monkeypatch.setattr(
        process, "wait", lambda *_: (_ for _ in ()).throw(child_module.subprocess.TimeoutExpired("true", 0))
    )
    assert child.close() == 0
    real()


# --- the program for tests ---------------------------------------------------------------------------


def test_the_program_for_tests(tmp_path, monkeypatch):
    spool = tmp_path / "spool"
    spool.write_bytes(b"m a=1 1\n")
    turns = iter([True, True, False])
    monkeypatch.setattr(simulator, "wait", lambda seconds: next(turns))
    out = SimpleNamespace(buffer=io.BytesIO(), write=lambda text: None, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", out)
    assert simulator.follow(str(spool)) == 0
    assert out.buffer.getvalue() == b"m a=1 1\n"
    assert simulator.follow(str(tmp_path / "none")) == 3
    said = []
    out.write = said.append
    monkeypatch.setattr(simulator, "wait", lambda seconds: len(said) < 3)
    assert simulator.count("2", "0") == 0
    assert simulator.count("2", "0") == 0
    assert "".join(said).count("oven,host=pi n=") == 2
    out.buffer = io.BytesIO()
    assert simulator.arrow("2") == 0
    assert pa.ipc.open_stream(out.buffer.getvalue()).read_all().num_rows == 20


def test_the_program_for_tests_is_one(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["simulator.py", "count", "0", "0"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(simulator.__file__, run_name="__main__")


def test_the_program_for_tests_stays(monkeypatch):
    monkeypatch.setattr(simulator.signal, "signal", lambda *_: None)
    monkeypatch.setattr(simulator.signal, "pause", lambda: (_ for _ in ()).throw(InterruptedError))
    for pid in (7, 0):
        monkeypatch.setattr(simulator.os, "fork", lambda pid=pid: pid)
        with pytest.raises(InterruptedError):
            simulator.stay()


def test_the_program_for_tests_ends_with_us(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert simulator.wait(0.0)
        os.close(writing)
        assert not simulator.wait(0.0)
