"""How far a scan looks, and what values may mean."""

import struct

import pytest

from headrace.adapters.modbus.scan import (
    ScanWish,
    found_tags,
    guesses,
    likely_order,
    scan_registers,
    scan_units,
)
from headrace.adapters.payloads.register_addresses import ORDERS, Area
from headrace.core.errors import ConfigError, NotConnected, Rejected


def test_everything_by_default():
    assert ScanWish.of({}) == ScanWish(tuple(Area), 0, 1_000, 2_000, ())
    assert ScanWish.of({"areas": "input, coil", "first": "65000", "units": "1-3,7,2"}) == ScanWish(
        (Area.INPUT, Area.COIL), 65_000, 536, 2_000, (1, 2, 3, 7)
    )


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"area": "coil"}, "a modbus scan knows no 'area'; did you mean 'areas'"),
        ({"areas": "register"}, "'register' is not one of coil, discrete"),
        ({"first": "-1"}, "'-1' is not a number from 0 to 65,535"),
        ({"first": "65535", "count": "2"}, "'2' is not a number from 1 to 1"),
        ({"requests": "0"}, "'0' is not a number"),
        ({"units": "7-1"}, "'7-1' is no unit; write 1-247"),
        ({"units": "1-300"}, "is no unit"),
        ({"units": "all"}, "is no unit"),
    ],
)
def test_wishes_that_cannot_be(wanted, why):
    with pytest.raises(ConfigError, match=why):
        ScanWish.of(wanted)


class Device:
    """Answers what `has` says; counts requests."""

    def __init__(self, has, code=2):
        self.has, self.code, self.n = has, code, 0

    async def ask(self, pdu):
        self.n += 1
        function, start, count = struct.unpack(">BHH", pdu)
        values = [self.has(function, i) for i in range(start, start + count)]
        if None in values:
            return bytes((function | 0x80, self.code))
        if function < 3:
            bits = int("".join(str(v) for v in reversed(values)), 2)
            data = bits.to_bytes((count + 7) // 8, "little")
        else:
            data = struct.pack(f">{count}H", *values)
        return bytes((function, len(data))) + data


async def test_what_is_there_is_found_between_what_is_not():
    there = {*range(100, 150), 300, *range(700, 1_000)}
    device = Device(lambda function, i: i if function == 3 and i in there else None)
    found = await scan_registers(device.ask, ScanWish((Area.HOLDING,)))
    assert found.values == {Area.HOLDING: {i: i for i in sorted(there)}}
    assert not found.unseen
    assert device.n < 1_400


async def test_an_area_that_is_not_there_costs_one_request():
    device = Device(lambda function, i: i % 2 if function == 1 else None, code=1)
    found = await scan_registers(device.ask, ScanWish())
    assert device.n == 4
    assert found.values[Area.COIL] == {i: i % 2 for i in range(1_000)}
    assert not found.values[Area.HOLDING]


async def test_a_scan_ends_when_its_requests_are_used():
    device = Device(lambda function, i: None)
    found = await scan_registers(device.ask, ScanWish((Area.HOLDING,), n_requests=8))
    assert device.n == 8
    assert sum(block.count for block in found.unseen) == 1_000
    tags = found_tags("d", found, 7)
    assert len(tags) == 16
    assert all("not looked at" in tag.problem for tag in tags)


async def test_answers_that_make_no_sense_and_none_at_all():
    async def nonsense(pdu):
        if struct.unpack(">BHH", pdu)[1] % 2:
            raise Rejected("garbled")
        return b"\x03\x00"

    found = await scan_registers(nonsense, ScanWish((Area.HOLDING,), count=4))
    assert found.values == {Area.HOLDING: {}}

    async def nothing(pdu):
        raise TimeoutError

    with pytest.raises(NotConnected, match="5 requests in a row were not answered, the last one holding:"):
        await scan_registers(nothing, ScanWish())


@pytest.mark.parametrize("order", ORDERS)
def test_floats_are_guessed_in_the_order_that_most_have(order):
    words, readings = [], [21.5, 400.25, -3.125, 0.013, 98_765.4]
    for value in readings:
        one = list(struct.unpack(">2H", struct.pack(">f", value)))
        if order in ("CDAB", "DCBA"):
            one.reverse()
        if order in ("BADC", "DCBA"):
            one = [word >> 8 | (word & 0xFF) << 8 for word in one]
        words += one
    values = dict(enumerate([*words, 0, 3, 7]))
    assert likely_order({Area.HOLDING: values, Area.COIL: {0: 1}}) == order
    found = guesses(Area.HOLDING, values, order)
    assert list(found) == [0, 2, 4, 6, 8]
    assert [value for _, value in found.values()] == pytest.approx(readings)
    assert str(found[2][0]) == f"holding:2:F32;order={order}"


def test_texts_are_guessed():
    text = dict(enumerate(struct.unpack(">6H", b"PUMP 12 A\x00\x01\x02")))
    found = guesses(Area.INPUT, text, "ABCD")
    assert {at: (str(address), value) for at, (address, value) in found.items()} == {
        0: ("input:0:STR[9];order=ABCD", "PUMP 12 A")
    }
    assert not guesses(Area.INPUT, {0: 0x4142}, "ABCD")
    assert not guesses(Area.INPUT, {}, "ABCD")


async def test_units():
    async def ask(unit, pdu):
        if unit == 2:
            raise TimeoutError
        if unit == 4:
            raise Rejected("garbled")
        return {1: b"\x03\x02\x01\x02", 3: b"\x83\x02", 5: b"\x83\x0b"}[unit]

    found = await scan_units(ask, ScanWish(units=(1, 2, 3, 4, 5)), lambda unit: f"u{unit}", lambda: 9)
    assert [(t.device, t.name, t.value, t.dtype, t.ts_ns) for t in found] == [
        ("u1", "unit 1", 258, "u16", 9), ("u3", "unit 3", None, "", 9), ("u4", "unit 4", None, "", 9),
    ]  # fmt: skip
    assert [t.problem for t in found] == [
        "",
        "exception 2 (illegal data address)",
        "it answers what makes no sense",
    ]
