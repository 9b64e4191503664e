"""What comes in, as checks that an adapter has to pass: any bytes, any order of bytes and of messages, the same twice.

They go on from `headrace.testing.adapters`; `NEEDS` says what more a rig has to be able to do. Each raises AssertionError
where a promise of `headrace.adapters.base` is broken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import SkipTest

import numpy as np

from headrace.adapters.abilities import Captured, Captures, Direction
from headrace.adapters.base import AdapterState
from headrace.core.clock import NS, SystemClock
from headrace.core.events import RejectCode
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.testing.adapters import AdapterRig, RecordingSink, identities, running, taken, until
from headrace.testing.fault_rigs import OrderedRig, RegisterRig, TimedRig, until_sent
from headrace.testing.registers import register_cases

N_FUZZED = 60
NO_CAPTURE = "the adapter captures nothing"
_EXTREMES = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x00" * 8, b"9" * 40, b"[" * 40)


# --- any bytes -----------------------------------------------------------------------------------------


def fuzzed(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut out, doubled, put in or cut off, by chance; never the same, and never none."""
    out = bytearray(data)
    while bytes(out) == data or not out:
        at, length = int(rng.integers(0, len(out) + 1)), int(rng.integers(1, 17))
        kind = int(rng.integers(0, 6))
        if kind == 0 and at < len(out):
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            extreme = _EXTREMES[int(rng.integers(0, len(_EXTREMES)))]
            out[at : at + len(extreme)] = extreme
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif kind == 4:
            del out[at:]
        else:
            out[at:at] = rng.bytes(length)
    return bytes(out)


@dataclass(frozen=True, slots=True)
class _Made:
    """What a decoder makes of pieces."""

    samples: frozenset[tuple[str, int, float | str | None]]
    n_refused: int


class _Bench:
    """The adapter's decoder alone."""

    def __init__(self, rig: AdapterRig) -> None:
        self._adapter = rig.make()

    def decode(self, pieces: Sequence[Captured]) -> _Made:
        """Decode, and look at all that comes of it."""
        assert isinstance(self._adapter, Captures)
        directory = SensorDirectory()
        batches, rejects = self._adapter.decode_captured(pieces, directory)
        for batch in batches:
            batch.check_columns()
            for slot in set(batch.slot.tolist()):
                assert directory.layout(slot).dtype == batch.dtype, "values have their layout's type"
        for reject in rejects:
            assert reject.code != RejectCode.INTERNAL, f"a defect: {reject.detail}"
            assert reject.detail, "a reject says what was expected and what came"
            assert reject.n_samples >= 1, "a reject is of one sample at least"
        found = (one for batch in batches for one in readings(batch, directory, 100_000))
        samples = frozenset((one.path, one.ts_ns, one.value) for one in found)
        return _Made(samples, sum(one.n_samples for one in rejects))


_NOTHING = _Made(frozenset(), 0)


async def check_fuzzed_input_is_accounted(rig: AdapterRig) -> None:
    """Whatever bytes come in, the decoder does not raise, and they come out: as samples, or as rejects."""
    if not isinstance(rig.make(), Captures):
        raise SkipTest(NO_CAPTURE)
    heard, bench, rng = await _heard(rig), _Bench(rig), np.random.default_rng(0)
    received = [at for at, one in enumerate(heard) if one.direction is Direction.RECEIVED]
    received = received[:-1] or received  # the last one of a stream may go on in the next
    without = {at: bench.decode([*heard[:at], *heard[at + 1 :]]) for at in received}
    silent = []
    for number in range(N_FUZZED):
        at = received[number % len(received)]
        other = replace(heard[at], data=fuzzed(heard[at].data, rng))
        made = bench.decode([*heard[:at], other, *heard[at + 1 :]])
        if made == without[at] and bench.decode([other]) == _NOTHING:
            silent.append(other.data)
    assert not silent, (
        f"{len(silent)} of {N_FUZZED} inputs vanished: neither samples nor rejects came of {silent[0]!r}"
    )


async def _heard(rig: AdapterRig) -> list[Captured]:
    """What the adapter hears of some samples."""
    heard: list[Captured] = []
    sink = RecordingSink()
    async with running(rig, sink) as adapter:
        assert isinstance(adapter, Captures)
        adapter.listen(heard.append)
        for _ in range(3):  # what is polled may have come before somebody listened
            await until_sent(rig, sink, "while somebody listens")
        adapter.listen(None)
    assert heard, "nothing was heard"
    return heard


# --- any order of bytes --------------------------------------------------------------------------------


async def check_every_order_of_every_type(rig: AdapterRig) -> None:
    """Registers of every type in every byte order are what an independent reading of them gives."""
    if not isinstance(rig, RegisterRig):
        raise SkipTest("the peer has no registers: the rig has no make_registers")
    cases, sink = register_cases(rig.has_texts), RecordingSink()
    adapter = rig.make_registers([case.address for case in cases])
    await rig.up()
    try:
        await adapter.start(sink)
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it is connected")
        await rig.send_registers(b"".join(case.data for case in cases))
        wanted = {(f"r{number}", case.value) for number, case in enumerate(cases)}
        await until(lambda: len(_by_signal(sink)) >= len(cases), f"{len(cases)} signals came")
        try:
            await until(lambda: wanted <= _by_signal(sink), "each is what it should be")
        except AssertionError as e:
            name, value = min(wanted - _by_signal(sink), key=str)
            found = sorted(value for signal, value in _by_signal(sink) if signal == name)
            raise AssertionError(f"{cases[int(name[1:])].address} is {found}, and should be {value}") from e
    finally:
        await adapter.stop()
        await rig.down()
    assert not sink.rejects, sink.rejects[0].detail


def _by_signal(sink: RecordingSink) -> set[tuple[str, float | str]]:
    return {(path.rpartition("/")[2], value) for path, value in taken(sink)}


# --- any order of messages, the same twice -------------------------------------------------------------


async def check_messages_out_of_order(rig: AdapterRig) -> None:
    """Where the later message comes first, no sample is missing, and each has the time that its source gave it."""
    if not isinstance(rig, OrderedRig):
        raise SkipTest("messages keep their order: the rig has no send_swapped")
    sink = RecordingSink()
    async with running(rig, sink):
        await until_sent(rig, sink, "in order")
        before = len(set(identities(sink)))
        n = await rig.send_swapped()
        await until(lambda: len(set(identities(sink))) >= before + n, "all of them come")
        await until_sent(rig, sink, "in order again")
    assert not sink.rejects, sink.rejects[0].detail


async def check_same_again_is_one_sample(rig: AdapterRig) -> None:
    """A sample that its source sends twice has the same identity both times, so that a store keeps one."""
    if not isinstance(rig, TimedRig):
        raise SkipTest("the peer does not say itself when a sample was taken: the rig has no send_at")
    sink = RecordingSink()
    async with running(rig, sink):
        now_ns = SystemClock().now_ns() // NS * NS
        n = await rig.send_at(now_ns)
        await until(lambda: _n_at(sink, now_ns) >= n, "it comes")
        first = set(identities(sink))
        await rig.send_at(now_ns)
        await rig.send_at(now_ns + NS)
        await until(lambda: _n_at(sink, now_ns + NS) >= n, "so does the next")
    assert not sink.rejects, sink.rejects[0].detail
    strange = [one for one in set(identities(sink)) - first if one[2] != now_ns + NS]
    assert not strange, f"the same sample has two identities: {strange[0]}"


def _n_at(sink: RecordingSink, ts_ns: int) -> int:
    """Different samples of that time."""
    return len({one for one in identities(sink) if one[2] == ts_ns})


CHECKS: tuple[Callable[[Any], Awaitable[None]], ...] = (
    check_fuzzed_input_is_accounted,
    check_every_order_of_every_type,
    check_messages_out_of_order,
    check_same_again_is_one_sample,
)
NEEDS: dict[Callable[[Any], Awaitable[None]], tuple[str, ...]] = {
    check_every_order_of_every_type: ("registers",),
    check_messages_out_of_order: ("order",),
    check_same_again_is_one_sample: ("times",),
}
"""Abilities that a rig needs for a check: see `headrace.testing.fault_rigs.ABILITIES`."""
