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
    PayloadDecoder,
    PayloadError,
    RuleSettings,
    SliceDecoder,
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
    directory, out = SensorDirectory(), ReadMessages()
    settings = RuleSettings(**{"path": f"{DEVICE}/{{key}}", **rule})
    decoder, groups = make(settings, TimeReader(settings.time_unit, "UTC")), DeviceGroups(directory)
    found = [
        TopicMessage("kit/device", payload, ARRIVAL_NS + number * 1_000_000_000)
        for number, payload in enumerate(messages)
    ]
    parts = [found] if together else [[message] for message in found]
    if hasattr(decoder, "reader"):
        reader = decoder.reader("kit", groups, settings.path.removesuffix("/{key}"))
        for part in parts:
            _take(reader.read(part), directory, out)
        return out
    rows = Rows("kit", groups)
    for part in parts:
        for message in part:
            try:
                decoder.read(message, groups.group(DEVICE, settings), rows)
            except PayloadError as e:
                out.refused.append(str(e.code))
        _take(rows.build(ARRIVAL_NS), directory, out)
    return out


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
    check_garbage_is_refused,
)
