"""Addresses of tag lists, whose types may stand in a column of their own."""

import pytest

from headrace.adapters.abilities import Addresses, TagAddress
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.core.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "dtype", "options", "text", "found", "place"),
    [
        ("holding:100", "f32", {}, "holding:100:F32", "f32", "holding:100:F32;order=ABCD"),
        (
            "holding:100;order=CDAB",
            "f32",
            {},
            "holding:100:F32;order=CDAB",
            "f32",
            "holding:100:F32;order=CDAB",
        ),
        ("holding:100:I16", "f32", {}, "holding:100:I16", "i16", "holding:100:I16"),
        ("holding:100", "u16", {}, "holding:100", "u16", "holding:100:U16"),
        ("holding:100", "", {}, "holding:100", "u16", "holding:100:U16"),
        ("holding:100.3", "u8", {}, "holding:100.3", "u8", "holding:100.3"),
        ("coil:7", "u8", {}, "coil:7", "u8", "coil:7"),
        ("40001", "f32", {"numbering": "modicon"}, "40001:F32", "f32", "holding:0:F32;order=ABCD"),
        ("holding:1", "", {"numbering": "one"}, "holding:1", "u16", "holding:0:U16"),
        ("holding:1", "", {"numbering": "odd"}, "holding:1", "u16", "holding:1:U16"),
    ],
)
def test_the_type_of_the_list_is_written_into_the_address(address, dtype, options, text, found, place):
    assert issubclass(ModbusAdapter, Addresses)
    assert ModbusAdapter.tag_address(address, dtype, options) == TagAddress(text, found, place)


@pytest.mark.parametrize(("address", "dtype"), [("register:1", ""), ("holding:1", "u8"), ("40001", "u16")])
def test_what_is_no_address_is_told(address, dtype):
    with pytest.raises(ConfigError, match="tag address"):
        ModbusAdapter.tag_address(address, dtype, {})


def test_a_state_in_a_register_is_one_of_its_bits():
    with pytest.raises(ConfigError, match=r"name the bit, as in holding:110.0, or another type"):
        ModbusAdapter.tag_address("holding:110", "u8", {})
