"""Answers that were captured become the frames that they became then."""

from headrace.adapters.abilities import Captured, Direction
from headrace.adapters.base import PlantFacts
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.poller import request_pdus
from headrace.core.problems import validate_section
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings

PROFILE = {"n": SignalSettings(address="holding:0"), "on": SignalSettings(address="coil:0")}


def decode(*answers):
    """What pieces give: (device, which block, answer)."""
    config = {"profile": "p", "devices": {"a/one": "modbus+tcp://h", "a/two": "modbus+tcp://h?unit=2"}}
    settings = validate_section(ModbusAdapter.Config, config, "adapters.x")
    adapter = ModbusAdapter.from_config("x", settings, {"p": PROFILE}, PlantFacts())
    requests = [pdu.hex() for pdu in request_pdus(adapter._plans[0])]
    captured = [
        Captured(1_000_000 * at, device, data, about={"request": requests[block]})
        for at, (device, block, data) in enumerate(answers)
    ]
    captured.insert(0, Captured(0, "a/one", b"\x01", Direction.SENT, {"request": requests[0]}))
    batches, rejects = adapter.decode_captured(captured, SensorDirectory())
    return {str(b.dtype): b for b in batches}, rejects


COIL, HOLDING = b"\x01\x01\x01", b"\x03\x02\x00\x07"


def test_whole_polls_give_frames_and_parts_of_polls_none():
    batches, rejects = decode(
        ("a/one", 1, HOLDING), ("a/one", 0, COIL), ("a/one", 0, COIL), ("a/two", 0, COIL), ("a/one", 1, HOLDING),
        ("nobody", 0, COIL), ("a/two", 1, HOLDING), ("a/two", 0, COIL),
    )  # fmt: skip
    assert not rejects
    assert batches["u16"].values.tolist() == [[7], [7]]
    assert batches["u8"].values.tolist() == [[1], [1]]
    assert batches["u16"].ts_ns.tolist() == [4_000_000, 6_000_000]


def test_refusals_are_marked_and_what_does_not_fit_is_a_reject():
    batches, rejects = decode(("a/one", 0, b"\x81\x02"), ("a/one", 1, HOLDING))
    assert batches["u8"].quality.tolist() == [[Quality.BAD_DEVICE]]
    assert not rejects
    batches, rejects = decode(("a/one", 0, COIL), ("a/one", 1, b"\x03\x01\x00"), ("a/one", 1, HOLDING))
    assert not batches
    assert (len(rejects), rejects[0].n_samples, rejects[0].source) == (1, 2, "a/one")


def test_before_start_nobody_can_listen():
    settings = validate_section(
        ModbusAdapter.Config, {"profile": "p", "devices": {"a": "modbus+tcp://h"}}, "x"
    )
    ModbusAdapter.from_config("x", settings, {"p": PROFILE}, PlantFacts()).listen(print)
