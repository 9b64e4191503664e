"""A serial line as asyncio sees a socket: a file descriptor that the event loop watches. Linux; no library.

The line is raw, 8 data bits, without flow control, and ours alone (a lock, and TIOCEXCL). RS-485 direction is the
driver's or the converter's matter.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import termios

from headrace.adapters.meters import reason_of
from headrace.adapters.modbus.endpoints import SerialLine
from headrace.core.errors import NotConnected

_READ_BYTES = 4_096
_PSEUDO = range(136, 144)
"""Major numbers of pseudo-terminals: those have no parity and refuse one."""


class SerialPort:
    """An open line that hands what comes to `protocol`.

    Parameters
    ----------
    fd : it belongs to the port from now on.
    """

    def __init__(self, fd: int, protocol: asyncio.Protocol) -> None:
        self._fd = fd
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    @classmethod
    def open(cls, path: str, line: SerialLine, protocol: asyncio.Protocol) -> SerialPort:
        """Open and set a line; does not block.

        Raises
        ------
        NotConnected : there is none, it is no serial line, or another program has it.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            raise NotConnected(f"can't open {path}: {reason_of(e)}") from e
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _set(fd, line)
            fcntl.ioctl(fd, termios.TIOCEXCL)
        except (OSError, termios.error) as e:
            os.close(fd)
            number = e.args[0]
            busy = number == errno.EWOULDBLOCK
            why = "another program has it" if busy else f"it can't be set: {os.strerror(number)}"
            raise NotConnected(f"can't open {path}: {why}") from e
        return cls(fd, protocol)

    def write(self, data: bytes) -> None:
        """Send; a request is shorter than what a line takes at once."""
        try:
            n = os.write(self._fd, data)
        except OSError as e:
            self._protocol.connection_lost(e)
            return
        if n < len(data):
            self._protocol.connection_lost(OSError(errno.EAGAIN, "the line takes no more bytes"))

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as e:
            self._protocol.connection_lost(e)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._protocol.connection_lost(None)

    def abort(self) -> None:
        """Close; nobody is told."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def _set(fd: int, line: SerialLine) -> None:
    """Raw bytes at the line's speed; what came before is dropped."""
    speed: int = getattr(termios, f"B{line.baud}")
    control = termios.CS8 | termios.CREAD | termios.CLOCAL
    has_parity = line.parity != "N" and os.major(os.fstat(fd).st_rdev) not in _PSEUDO
    if has_parity:
        control |= termios.PARENB | (termios.PARODD if line.parity == "O" else 0)
    if line.stop == 2:
        control |= termios.CSTOPB
    input_ = termios.INPCK if has_parity else 0
    characters: list[bytes | int] = [b"\0"] * len(termios.tcgetattr(fd)[6])
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    attributes: list[int | list[bytes | int]] = [input_, 0, control, 0, speed, speed, characters]
    termios.tcsetattr(fd, termios.TCSAFLUSH, attributes)
