"""Answers that were captured become the frames that they became then."""

import pytest

from headrace.adapters.abilities import Captured, Direction
from headrace.adapters.base import PlantFacts
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.captured import about_piece
from headrace.adapters.modbus.reads import BlockRead, block_text, blocks_of_text, read_request
from headrace.adapters.payloads.register_addresses import Area
from headrace.adapters.payloads.registers import Block, RegisterSpan
from headrace.core.problems import validate_section
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings

PROFILE = {"n": SignalSettings(address="holding:0"), "on": SignalSettings(address="coil:0")}
WIDE = {f"n{i}": SignalSettings(address=f"holding:{i}") for i in range(4)}
COIL, HOLDING = b"\x01\x01\x01", b"\x03\x02\x00\x07"
ASK_COIL, ASK_HOLDING = read_request(Area.COIL, 0, 1), read_request(Area.HOLDING, 0, 1)
_DAY_NS = 86_400 * 10**9


def make(profile=PROFILE):
    config = {"profile": "p", "devices": {"a/one": "modbus+tcp://h", "a/two": "modbus+tcp://h?unit=2"}}
    settings = validate_section(ModbusAdapter.Config, config, "adapters.x")
    return ModbusAdapter.from_config("x", settings, {"p": profile}, PlantFacts())


def piece(at_ns, device, request, data, part, refused=(), is_again=False):
    return Captured(at_ns, device, data, about=about_piece("h:502", request, part, is_again, refused))


def decode(*pieces, profile=PROFILE):
    batches, rejects = make(profile).decode_captured(pieces, SensorDirectory())
    return {str(b.dtype): b for b in batches}, rejects


def polls(*answers):
    """Pieces of polls of a coil and a register: (device, which request, answer), a millisecond each."""
    asks = ASK_COIL, ASK_HOLDING
    return [
        piece(1_000_000 * at, device, asks[number], data, (number + 1, 2))
        for at, (device, number, data) in enumerate(answers)
    ]


def read(start, count):
    whole = Block(Area.HOLDING, 0, 4)
    return BlockRead.of(0, whole, tuple(RegisterSpan(i, 1) for i in range(start, start + count)))


def test_whole_polls_give_frames_and_parts_of_polls_none():
    sent = Captured(0, "a/one", b"\x01", Direction.SENT, {"request": ASK_COIL.hex(), "part": "1/2"})
    pieces = polls(
        ("a/one", 1, HOLDING), ("a/one", 0, COIL), ("a/one", 0, COIL), ("a/two", 0, COIL), ("a/one", 1, HOLDING),
        ("nobody", 0, COIL), ("a/two", 1, HOLDING), ("a/two", 0, COIL),
    )  # fmt: skip
    batches, rejects = decode(sent, *pieces)
    assert not rejects
    assert batches["u16"].values.tolist() == [[7], [7]]
    assert batches["u8"].values.tolist() == [[1], [1]]
    assert batches["u16"].ts_ns.tolist() == [4_000_000, 6_000_000]


def test_refusals_are_marked_and_what_does_not_fit_is_a_reject():
    batches, rejects = decode(*polls(("a/one", 0, b"\x81\x02"), ("a/one", 1, HOLDING)))
    assert batches["u8"].quality.tolist() == [[Quality.BAD_DEVICE]]
    assert not rejects
    batches, rejects = decode(
        *polls(("a/one", 0, COIL), ("a/one", 1, b"\x03\x01\x00"), ("a/one", 1, HOLDING))
    )
    assert not batches
    assert (len(rejects), rejects[0].n_samples, rejects[0].source) == (1, 2, "a/one")


def test_a_gateway_whose_device_is_away_gives_nothing():
    batches, rejects = decode(*polls(("a/one", 0, b"\x81\x0b"), ("a/one", 1, HOLDING)))
    assert not batches
    assert not rejects


def test_parts_of_a_block_are_put_together_and_what_was_left_out_is_marked():
    low, high = read(0, 2), read(2, 1)
    left_out, whole = read(3, 1), read(0, 4)
    batches, _ = decode(
        piece(1, "a/one", low.request, b"\x03\x04\x00\x01\x00\x02", (1, 3), [left_out]),
        piece(2, "a/one", high.request, b"\x03\x02\x00\x03", (2, 3), [left_out]),
        piece(3, "a/one", whole.request, b"\x83\x02", (3, 3), [left_out], is_again=True),
        profile=WIDE,
    )
    assert batches["u16"].values.tolist() == [[1, 2, 3, 0]]
    assert batches["u16"].quality.tolist() == [[0, 0, 0, Quality.BAD_DEVICE]]


@pytest.mark.parametrize("asked", [read_request(Area.HOLDING, 0, 3), read_request(Area.INPUT, 0, 4)])
def test_polls_of_other_registers_give_nothing(asked):
    count = asked[-1]
    answer = bytes((asked[0], 2 * count)) + bytes(2 * count)
    batches, rejects = decode(piece(1, "a/one", asked, answer, (1, 1)), profile=WIDE)
    assert not batches
    assert not rejects


def test_each_day_has_its_calibration():
    calibrated = SignalSettings(
        address="holding:0", calibration=[{"from": "1970-01-02", "scale": 2.0}, {"from": "1970-01-03"}]
    )
    asked = [
        piece(day * _DAY_NS, device, ASK_HOLDING, HOLDING, (1, 1))
        for day in (0, 1, 2, 3)
        for device in ("a/one", "a/two")
    ]
    directory = SensorDirectory()
    batches, _ = make({"n": calibrated}).decode_captured(asked, directory)
    scales = [[directory.layout(slot).columns[0].scale for slot in batch.slot.tolist()] for batch in batches]
    assert scales == [[1.0] * 6, [2.0] * 2]


def test_blocks_are_read_as_they_are_written():
    blocks = [Block(Area.HOLDING, 3, 1), Block(Area.COIL, 0, 16)]
    assert blocks_of_text(",".join(map(block_text, blocks))) == blocks
    assert blocks_of_text("") == []


def test_before_start_nobody_can_listen():
    make().listen(print)
