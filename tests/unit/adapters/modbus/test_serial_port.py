"""A serial line: set as it should be, ours alone, and told when it is gone. The line is a pseudo-terminal."""

import asyncio
import os
import pty
import termios
from itertools import pairwise

import pytest

from headrace.adapters.modbus import serial_port
from headrace.adapters.modbus.endpoints import Endpoint, ModbusLink, SerialLine, parse_url
from headrace.adapters.modbus.framing import crc16
from headrace.adapters.modbus.serial_port import SerialPort
from headrace.adapters.modbus.transport import GarbledAnswer, ModbusTransport
from headrace.core.errors import NotConnected

READ = bytes((3, 0, 0, 0, 1))
ANSWER = bytes((3, 2, 0, 7))


class Ear(asyncio.Protocol):
    def __init__(self):
        self.heard = b""
        self.lost = []

    def data_received(self, data):
        self.heard += data

    def connection_lost(self, exc):
        self.lost.append(exc)


@pytest.fixture
def line():
    fds = list(pty.openpty())
    yield fds, os.ttyname(fds[1])
    for fd in fds:
        os.close(fd)


def rtu(unit, pdu):
    frame = bytes((unit,)) + pdu
    return frame + crc16(frame).to_bytes(2, "little")


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not happen")


async def test_bytes_go_both_ways(line):
    (ours, _), path = line
    ear = Ear()
    port = SerialPort.open(path, SerialLine(9_600, "N", 2), ear)
    try:
        os.write(ours, b"a\r\n\0\x03\x04\x11\x13\xff")
        await until(lambda: len(ear.heard) == 9)
        assert ear.heard == b"a\r\n\0\x03\x04\x11\x13\xff", "raw: nothing is made of any byte"
        port.write(b"\n\r\x03")
        await until(lambda: True)
        assert os.read(ours, 10) == b"\n\r\x03"
    finally:
        port.abort()
        port.abort()
    assert not ear.lost


@pytest.mark.parametrize(
    ("parity", "flags"), [("N", 0), ("E", termios.PARENB), ("O", termios.PARENB | termios.PARODD)]
)
def test_a_line_is_set_as_its_url_says(line, monkeypatch, parity, flags):
    """A pseudo-terminal has neither speed nor parity, so it is looked at what the system is told."""
    told = []
    monkeypatch.setattr(serial_port, "_PSEUDO", ())
    monkeypatch.setattr(
        serial_port.termios, "tcsetattr", lambda fd, when, attributes: told.append(attributes)
    )
    for stop in (1, 2):
        serial_port._set(line[0][1], SerialLine(19_200, parity, stop))
        input_, output, control, local, *speeds, characters = told[-1]
        assert (output, local, speeds) == (0, 0, [termios.B19200] * 2)
        assert control & (termios.PARENB | termios.PARODD) == flags
        assert bool(control & termios.CSTOPB) == (stop == 2)
        assert control & termios.CSIZE == termios.CS8
        assert bool(input_ & termios.INPCK) == bool(flags)
        assert (characters[termios.VMIN], characters[termios.VTIME]) == (1, 0)


async def test_a_line_is_ours_alone(line):
    port = SerialPort.open(line[1], SerialLine(), Ear())
    try:
        with pytest.raises(NotConnected, match="another program has it|busy"):
            SerialPort.open(line[1], SerialLine(), Ear())
    finally:
        port.abort()
    SerialPort.open(line[1], SerialLine(), Ear()).abort()


@pytest.mark.parametrize(
    ("path", "why"),
    [("none", "can't open .*none: No such file"), ("file", "it can't be set: Inappropriate ioctl")],
)
async def test_what_is_no_line(tmp_path, path, why):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotConnected, match=why):
        SerialPort.open(str(tmp_path / path), SerialLine(), Ear())


async def test_a_line_that_goes_away_is_noticed():
    ours, theirs = pty.openpty()
    lost = []
    endpoint = Endpoint(ModbusLink.RTU, os.ttyname(theirs), line=SerialLine(115_200))
    transport = await ModbusTransport.connect(endpoint, 1.0, lost.append)
    asking = asyncio.ensure_future(transport.request(1, READ, 30))
    await asyncio.sleep(0)
    os.close(theirs)
    os.close(ours)
    with pytest.raises(NotConnected, match="connection lost: Input/output error|closed by the device"):
        await asking
    assert len(lost) == 1


async def test_reads_that_fail_or_find_nothing(monkeypatch, line):
    ear = Ear()
    port = SerialPort.open(line[1], SerialLine(), ear)

    def blocks(fd, n):
        raise BlockingIOError

    def fails(*arguments):
        raise OSError(5, "gone")

    with monkeypatch.context() as patch:
        patch.setattr(serial_port.os, "read", blocks)
        port._read()
        assert not ear.lost
        patch.setattr(serial_port.os, "read", lambda fd, n: b"")
        port._read()
        assert ear.lost == [None]
        patch.setattr(serial_port.os, "read", fails)
        port._read()
        patch.setattr(serial_port.os, "write", fails)
        port.write(b"x")
        patch.setattr(serial_port.os, "write", lambda fd, data: len(data) - 1)
        port.write(b"x")
    assert [type(e) for e in ear.lost[1:]] == [OSError] * 2 + [BlockingIOError]
    port.abort()


class Slave:
    """Answers requests on a line as `script` says."""

    def __init__(self, fds, script):
        self.fd, self.script = fds[0], script
        self.asked_s = []
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.fd, self.answer)

    def answer(self):
        data = os.read(self.fd, 100)
        self.asked_s.append(self.loop.time())
        for chunk in self.script(data, len(self.asked_s)):
            os.write(self.fd, chunk)

    def close(self):
        self.loop.remove_reader(self.fd)


async def on_line(line, script, url="modbus+rtu://{}?baud=300&parity=N"):
    slave = Slave(line[0], script)
    endpoint = parse_url(url.format(line[1])).endpoint
    return slave, await ModbusTransport.connect(endpoint, 1.0, print)


async def test_the_line_is_silent_between_frames(line):
    slave, transport = await on_line(
        line, lambda data, n: [rtu(1, ANSWER)], "modbus+rtu://{}?baud=600&parity=N"
    )
    try:
        for _ in range(3):
            assert await transport.request(1, READ, 1.0) == ANSWER
        gaps = [b - a for a, b in pairwise(slave.asked_s)]
        assert all(gap >= 3.5 * 11 / 600 * 0.9 for gap in gaps), gaps
    finally:
        slave.close()
        transport.close()


async def test_closing_while_a_request_waits_for_silence(line):
    slave, transport = await on_line(line, lambda data, n: [rtu(1, ANSWER)])
    try:
        await transport.request(1, READ, 1.0)
        waiting = asyncio.ensure_future(transport.request(1, READ, 1.0))
        await asyncio.sleep(0)
        transport.close()
        with pytest.raises(NotConnected, match="closed"):
            await waiting
        assert len(slave.asked_s) == 1
    finally:
        slave.close()


async def test_a_late_answer_of_another_unit_and_a_stray_broadcast(line):
    """The first unit answers when the second is asked; somebody else says something to all."""
    chunks = [[], [rtu(0, bytes((6, 0, 1, 0, 1))), rtu(1, ANSWER), rtu(2, bytes((3, 2, 0, 9)))]]
    slave, transport = await on_line(
        line, lambda data, n: chunks[n - 1], "modbus+rtu://{}?baud=115200&parity=N"
    )
    try:
        with pytest.raises(TimeoutError):
            await transport.request(1, READ, 0.02)
        assert await transport.request(2, READ, 1.0) == bytes((3, 2, 0, 9))
        os.write(line[0][0], rtu(1, ANSWER))
        await until(lambda: transport.n_late == 1)
    finally:
        slave.close()
        transport.close()


async def test_an_answer_with_a_wrong_checksum_is_kept(line):
    wrong = rtu(1, ANSWER)[:-1] + b"\x00"
    slave, transport = await on_line(line, lambda data, n: [wrong], "modbus+rtu://{}?baud=115200&parity=N")
    try:
        with pytest.raises(GarbledAnswer, match="no frame with the right checksum: 01 03 02 00 07") as e:
            await transport.request(1, READ, 0.02)
        assert e.value.raw == wrong
    finally:
        slave.close()
        transport.close()
