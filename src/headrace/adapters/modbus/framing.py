"""Frames on the wire, pure: what is sent for a request, and the answer in what comes back, however it is cut.

One request is outstanding at a time. Modbus TCP tells answers apart by a transaction id. RTU has none: there an answer
is what begins with the unit and function that were asked, has the length that it says and the right checksum, wherever
in the bytes it stands; noise before it, and frames of others, are passed over.

Source: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3 (MBAP header); MODBUS over Serial Line V1.02,
sections 2.5 (RTU) and 6.2 (CRC).
"""

from __future__ import annotations

import struct
from typing import Protocol

HEADER = struct.Struct(">HHHB")
"""Transaction id, protocol id (0), length of what follows it, unit."""
MAX_PDU_BYTES = 253
_RTU_BYTES_MAX = 512
_EXCEPTION_BYTES = 5


class NotModbus(Exception):
    """What came can't be Modbus; the connection is of no use any more."""


class Framing(Protocol):
    """How frames are told on one kind of link."""

    n_late: int
    """Frames that answered nothing: late ones, and others' ones."""

    def begin(self, unit: int, pdu: bytes) -> bytes:
        """Begin a request: what to send."""
        ...

    def take(self, data: bytes) -> bytes | None:
        """Take bytes: the answer's PDU, once it is whole. Raises `NotModbus`."""
        ...

    def end(self) -> bytes:
        """The request is over: bytes that came for it and were no frame."""
        ...


class TcpFraming:
    """Modbus TCP: frames with a header."""

    def __init__(self) -> None:
        self.n_late = 0
        self._received = bytearray()
        self._transaction = 0
        self._unit = -1

    def begin(self, unit: int, pdu: bytes) -> bytes:
        """Begin a request with the next transaction id."""
        self._transaction = (self._transaction + 1) & 0xFFFF
        self._unit = unit
        return HEADER.pack(self._transaction, 0, len(pdu) + 1, unit) + pdu

    def take(self, data: bytes) -> bytes | None:
        """The answer, once its last byte came; all other whole frames are dropped and counted."""
        if not self._received and len(data) > HEADER.size:
            transaction, protocol, length, unit = HEADER.unpack_from(data)
            is_ours = transaction == self._transaction and unit == self._unit and protocol == 0
            if is_ours and len(data) == length + 6 <= HEADER.size + MAX_PDU_BYTES:  # nearly always
                self._unit = -1
                return data[HEADER.size :]
        self._received += data
        return self._answer()

    def _answer(self) -> bytes | None:
        """Go through what came."""
        answer, at = None, 0
        while len(self._received) - at >= HEADER.size:
            transaction, protocol, length, unit = HEADER.unpack_from(self._received, at)
            if protocol != 0 or not 2 <= length <= MAX_PDU_BYTES + 1:
                raise NotModbus(bytes(self._received[at : at + 16]).hex(" "))
            end = at + 6 + length
            if len(self._received) < end:
                break
            if transaction == self._transaction and unit == self._unit:
                answer = bytes(self._received[at + HEADER.size : end])
                self._unit = -1
            else:
                self.n_late += 1
            at = end
        del self._received[:at]
        return answer

    def end(self) -> bytes:
        """A frame that has begun stays: its rest may come late."""
        self._unit = -1
        return b""


class RtuFraming:
    """RTU: frames with a checksum.

    Parameters
    ----------
    has_echo : whether each request is heard before its answer.
    """

    def __init__(self, has_echo: bool = False) -> None:
        self.n_late = 0
        self._has_echo = has_echo
        self._received = bytearray()
        self._sent = b""
        self._is_asking = False

    def begin(self, unit: int, pdu: bytes) -> bytes:
        """Begin a request; what came before it is forgotten."""
        frame = bytes((unit,)) + pdu
        self._sent = frame + crc16(frame).to_bytes(2, "little")
        self._received.clear()
        self._is_asking = True
        return self._sent

    def take(self, data: bytes) -> bytes | None:
        """The answer, once its last byte came."""
        if not self._is_asking:
            self.n_late += 1
            return None
        self._received += data
        del self._received[:-_RTU_BYTES_MAX]
        if self._has_echo:
            n = min(len(self._sent), len(self._received))
            if self._received[:n] == self._sent[:n]:
                if n < len(self._sent):
                    return None
                return self._find(n)
        return self._find(0)

    def _find(self, at: int) -> bytes | None:
        unit, function, data = self._sent[0], self._sent[1], self._received
        for start in range(at, len(data) - _EXCEPTION_BYTES + 1):
            if data[start] != unit or data[start + 1] & 0x7F != function:
                continue
            size = _EXCEPTION_BYTES if data[start + 1] & 0x80 else 5 + data[start + 2]
            if len(data) >= start + size and crc16(data[start : start + size]) == 0:
                self._is_asking = False
                return bytes(data[start + 1 : start + size - 2])
        return None

    def end(self) -> bytes:
        """What came instead of an answer."""
        self._is_asking = False
        left = bytes(self._received)
        if self._has_echo and left[: len(self._sent)] == self._sent:
            left = left[len(self._sent) :]
        return left


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC = _crc_table()


def crc16(data: bytes | bytearray) -> int:
    """The checksum of RTU frames; of a frame with its checksum (low byte first) it is 0."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc
