"""The kit that every payload decoder has to pass. Plain functions; `make` builds the decoder for a rule.

Example of a third party's test::

    from headrace.testing import payloads as kit

    @pytest.mark.parametrize("check", kit.CHECKS)
    def test_my_decoder(check):
        check(MyDecoder, [b"a=1;b=2", b"a=3"])

The messages are good ones of the format. Each check raises AssertionError where a promise of
`headrace.adapters.payloads.base` is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.adapters.payloads.base import (
    Decoded,
    ManyReader,
    MessagePile,
    PayloadDecoder,
    PayloadError,
    RuleSettings,
    SliceDecoder,
    SliceReader,
    TopicMessage,
)
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.rows import Rows
from headrace.adapters.payloads.times import TimeReader
from headrace.core.sensors import SensorDirectory
from headrace.testing.engines import flat

Make = Callable[[RuleSettings, TimeReader], PayloadDecoder | SliceDecoder]
ARRIVAL_NS = 1_767_225_600_000_000_000
DEVICE = "site/line/device"
_N_GARBAGE = 300


@dataclass
class ReadMessages:
    """What messages gave: (path, time, value) of every sample in order, and codes of what was refused."""

    samples: list[tuple[str, int, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def read(make: Make, messages: Sequence[bytes], together: bool = True, **rule: Any) -> ReadMessages:
    """Decode messages of one device, a second apart.

    Parameters
    ----------
    together : in one batch, as a busy source is read, or each alone. rule : keys of the topic rule.
    """
    bench = _Bench(make, **rule)
    for message in bench.messages(messages):
        bench.read(message)
        if not together:
            bench.take()
    return bench.take()


class _Bench:
    """A decoder with one device, which reads as an adapter has it read."""

    def __init__(self, make: Make, **rule: Any) -> None:
        self._directory, self._out = SensorDirectory(), ReadMessages()
        self._settings = RuleSettings(**{"path": f"{DEVICE}/{{key}}", **rule})
        self.decoder: Any = make(self._settings, TimeReader(self._settings.time_unit, "UTC"))
        self._groups = DeviceGroups(self._directory)
        self._rows = Rows("kit", self._groups)
        self._reader: SliceReader | None = None
        self._waiting: list[TopicMessage] = []
        if hasattr(self.decoder, "reader"):
            path = self._settings.path.removesuffix("/{key}")
            self._reader = self.decoder.reader("kit", self._groups, path)
        self._n = 0

    def messages(self, payloads: Sequence[bytes]) -> list[TopicMessage]:
        """Messages that arrive after all earlier ones."""
        first, self._n = self._n, self._n + len(payloads)
        return [
            TopicMessage("kit/device", payload, ARRIVAL_NS + (first + number) * 1_000_000_000)
            for number, payload in enumerate(payloads)
        ]

    def read(self, message: TopicMessage) -> None:
        """Read one."""
        if self._reader is not None:
            self._waiting.append(message)
            return
        try:
            self.decoder.read(message, self._groups.group(DEVICE, self._settings), self._rows)
        except PayloadError as e:
            self._out.refused.append(str(e.code))

    def read_many(self, messages: Sequence[TopicMessage]) -> int:
        """Read them at once, and what is left one by one; how many were left."""
        assert isinstance(self.decoder, ManyReader)
        group = self._groups.group(DEVICE, self._settings)
        payloads = [message.payload for message in messages]
        numbers = np.full(len(messages), group.number, np.int64)
        pile = MessagePile(messages, payloads, b"".join(payloads), numbers, self._groups.devices)
        left = self.decoder.read_many(pile, self._rows)
        for number in left:
            self.read(messages[number])
        return len(left)

    def take(self) -> ReadMessages:
        """All that was read so far."""
        _take(self._rows.build(ARRIVAL_NS), self._directory, self._out)
        if self._reader is not None and self._waiting:
            _take(self._reader.read(self._waiting), self._directory, self._out)
            self._waiting = []
        return self._out


def _take(decoded: Decoded, directory: SensorDirectory, out: ReadMessages) -> None:
    for batch in decoded.batches:
        batch.check_columns()
        for slot, column, ts_ns, kept in flat(batch):
            value = kept.value if batch.dictionary is None else batch.dictionary[kept.value]
            out.samples.append((directory.sensor_path(slot, column), ts_ns, value))
    out.refused += [str(reject.code) for reject in decoded.rejects]


def check_good_messages_are_taken(make: Make, messages: Sequence[bytes], **rule: Any) -> None:
    """Each message gives samples, and nothing of it is refused."""
    for message in messages:
        found = read(make, [message], **rule)
        assert found.samples, f"nothing was read from {message!r}"
        assert not found.refused, f"{message!r}: {found.refused}"


def check_together_is_as_one_by_one(make: Make, messages: Sequence[bytes], **rule: Any) -> None:
    """How messages are gathered does not change what is read."""
    one, other = read(make, messages, **rule), read(make, messages, together=False, **rule)
    assert sorted(map(repr, one.samples)) == sorted(map(repr, other.samples))
    assert sorted(one.refused) == sorted(other.refused)


def check_many_are_as_one_by_one(make: Make, messages: Sequence[bytes], **rule: Any) -> None:
    """A decoder that reads many at once (`ManyReader`) gives what it gives one by one, and leaves none when they come again."""
    many, single = _Bench(make, **rule), _Bench(make, **rule)
    if not isinstance(many.decoder, ManyReader):
        return
    n_left = 0
    for _ in range(3):
        n_left = many.read_many(many.messages(messages))
        for message in single.messages(messages):
            single.read(message)
        one, other = many.take(), single.take()
        assert sorted(map(repr, one.samples)) == sorted(map(repr, other.samples))
        assert sorted(one.refused) == sorted(other.refused)
    assert not n_left, (
        f"{n_left} of {len(messages)} messages are left to be read one by one, each time they come"
    )


def check_garbage_is_refused(make: Make, messages: Sequence[bytes], **rule: Any) -> None:
    """Cut, changed and random bytes raise nothing but `PayloadError`, and good messages behind them are read."""
    rng = np.random.default_rng(0)
    for number in range(_N_GARBAGE):
        good = messages[number % len(messages)]
        bad = bytearray(good[: int(rng.integers(0, len(good) + 1))])
        for _ in range(int(rng.integers(0, 4))):
            bad.insert(int(rng.integers(0, len(bad) + 1)), int(rng.integers(0, 256)))
        if number % 5 == 0:
            bad = bytearray(rng.bytes(int(rng.integers(0, 200))))
        found = read(make, [bytes(bad)], **rule)
        assert all(path.startswith(DEVICE) for path, _, _ in found.samples), bytes(bad)
    after = read(make, [b"\xff\x00\xfe", messages[0]], **rule)
    assert after.samples, "a good message behind garbage was not read"


CHECKS: tuple[Callable[..., None], ...] = (
    check_good_messages_are_taken,
    check_together_is_as_one_by_one,
    check_many_are_as_one_by_one,
    check_garbage_is_refused,
)
