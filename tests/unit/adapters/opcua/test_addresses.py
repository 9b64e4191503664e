"""Node ids as they are written."""

import pytest

from headrace.adapters.abilities import Addresses, TagAddress
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.addresses import parse_node
from headrace.core.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    [
        "i=2258", "ns=2;i=7", "ns=2;s=Line1.Temp", "ns=3;s=a;b=c", "nsu=http://maker.example/;s=x",
        "ns=4;g=09087e75-8e5e-499b-954f-f2a9603db28a", "ns=1;b=M/RbKBsRVkePCePcx24oRA==", "ns=2;s={node}.Temp",
        "nsu=urn:a%3Bb%25;i=1", "ns=2;i={node}",
    ],
)  # fmt: skip
def test_what_is_written_is_printed_back(text):
    assert str(parse_node(text)) == text


def test_a_namespace_uri_is_unescaped():
    assert parse_node("nsu=urn:a%3Bb%25;i=1").uri == "urn:a;b%"


@pytest.mark.parametrize(
    "text",
    ["", "Temp", "ns=2", "ns=x;s=a", "ns=70000;s=a", "s=", "i=-1", "i=4294967296", "g=1", "b=?", "ns=2;x=1"],
)
def test_what_is_no_node_id_is_told(text):
    with pytest.raises(ConfigError, match="is no node id"):
        parse_node(text)


def test_a_relative_address_needs_the_devices_node():
    address = parse_node("ns=2;s={node}.Temp")
    assert str(address.of_device("Oven1")) == "ns=2;s=Oven1.Temp"
    assert parse_node("i=1").of_device("") == parse_node("i=1")
    with pytest.raises(ConfigError, match="needs the device's node; write node="):
        address.of_device("")
    with pytest.raises(ConfigError, match="'x' is not a number of 32 bits"):
        parse_node("ns=2;i={node}").of_device("x")


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("ns=2;s=Line1.Temp", "ns=2;s=Line1.Temp"), ("ns=0;i=0085", "i=85"), ("nsu=http://opcfoundation.org/UA/;i=85", "i=85"),
        ("ns=2;s={node}.Temp", "ns=2;s={node}.Temp"), ("nsu=urn:x;i={node}", "nsu=urn:x;i={node}"),
        ("g=09087E75-8E5E-499B-954F-F2A9603DB28A", "g=09087e75-8e5e-499b-954f-f2a9603db28a"),
        ("ns=1;b=M/RbKBsRVkePCePcx24oRA==", "ns=1;b=M/RbKBsRVkePCePcx24oRA=="),
    ],
)  # fmt: skip
def test_addresses_of_tag_lists(address, place):
    assert issubclass(OpcuaAdapter, Addresses)
    for dtype in ("", "f32", "string"):
        assert OpcuaAdapter.tag_address(address, dtype, {}) == TagAddress(address, dtype, place)
    with pytest.raises(ConfigError, match="tag address 'holding:100' is no node id; write"):
        OpcuaAdapter.tag_address("holding:100", "", {})
