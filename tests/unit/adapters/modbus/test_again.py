"""Polls that were refused and kept, decoded once more by a profile that was mended."""

import json

import pytest
from tests.unit.adapters.modbus.test_captured import make

from headrace.adapters.abilities import Redecodes
from headrace.adapters.modbus.again import poll_text
from headrace.adapters.modbus.reads import read_request
from headrace.adapters.payloads.register_addresses import Area
from headrace.core.events import Reject, RejectCode
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings

AT_NS = 1_700_000_000_123_456_789
TEN, SEVEN_BITS = read_request(Area.HOLDING, 100, 10), read_request(Area.COIL, 8, 12)
FIVE_REGISTERS = b"\x03\x0a" + b"".join(n.to_bytes(2, "big") for n in range(100, 105))


def profile(*addresses):
    return {f"n{i}": SignalSettings(address=address) for i, address in enumerate(addresses)}


def refused(*pieces, source="a/one", raw=None):
    raw = poll_text(pieces) if raw is None else raw
    return Reject(RejectCode.MALFORMED, "x", source, "it does not fit", raw, AT_NS, 10)


def again(reject, *addresses, directory=None):
    adapter = make(profile(*addresses))
    assert isinstance(adapter, Redecodes)
    return adapter.redecode(reject, directory or SensorDirectory())


def test_a_profile_that_reads_no_more_than_there_was_takes_it():
    reject = refused((TEN, FIVE_REGISTERS))
    batches, (still,) = again(reject, "holding:100", "holding:107")
    assert (batches, still.detail) == ([], "the answers to holding:100..109 hold less than the profile reads")
    assert still.raw == reject.raw
    (batch,), rejects = again(reject, "holding:101", "holding:103")
    assert not rejects
    assert batch.values.tolist() == [[101, 103]]
    assert batch.ts_ns.tolist() == [AT_NS // 10**6 * 10**6]
    assert (batch.arrival_ns, batch.origin) == (AT_NS, "x")


def test_twice_gives_the_same_groups():
    directory, reject = SensorDirectory(), refused((TEN, FIVE_REGISTERS))
    one, two = (again(reject, "holding:101", directory=directory)[0][0] for _ in range(2))
    assert one.to_bytes() == two.to_bytes()
    assert directory.n_slots == 1


def test_all_answers_of_the_poll_are_kept_and_exceptions_are_bad_values():
    bits = (0b0101_1010_0011).to_bytes(2, "little")
    exception = (read_request(Area.HOLDING, 200, 2), b"\x83\x02")
    reject = refused((SEVEN_BITS, b"\x01\x02" + bits), exception, (TEN, FIVE_REGISTERS))
    batches, rejects = again(reject, "coil:9", "coil:12", "coil:13", "holding:104", "holding:201")
    assert not rejects
    by_type = {str(batch.dtype): batch for batch in batches}
    assert by_type["u8" if "u8" in by_type else "bool"].values.tolist() == [[1, 0, 1]]
    numbers = by_type["u16"]
    assert (numbers.values[0, 0], numbers.quality.tolist()) == (104, [[Quality.GOOD, Quality.BAD_DEVICE]])


@pytest.mark.parametrize(
    ("reject", "why"),
    [
        (refused((TEN, FIVE_REGISTERS), source="a/gone"), "adapter x has no device 'a/gone'"),
        (refused(raw=FIVE_REGISTERS), "what was asked was not kept with it"),
        (refused(raw=json.dumps({"poll": [["00"]]}).encode()), "what was asked was not kept with it"),
        (refused((TEN, b"\x04\x02\x00\x01")), "04 02 00 01 is no answer to a request for holding:100..109"),
        (refused((TEN, b"\x03\x04\x00\x01")), "03 04 00 01 is no answer"),
        (refused((TEN, b"")), " is no answer to a request"),
        (refused((read_request(Area.COIL, 100, 5), b"\x01\x01\x01")), "hold less than the profile reads"),
    ],
)  # fmt: skip
def test_what_still_fails_says_why(reject, why):
    batches, (still,) = again(reject, "holding:100")
    assert batches == []
    assert why in still.detail
    assert (still.raw, still.code, still.n_samples) == (reject.raw, reject.code, reject.n_samples)
