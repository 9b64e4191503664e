"""Tag addresses, read planning, and what the decoder promises beyond values."""

import numpy as np
import pytest

from headrace.adapters.payloads.register_addresses import Area, Numbering, RegisterAddress, parse_address
from headrace.adapters.payloads.registers import Block, RegisterTag, compile_read_map, plan_reads
from headrace.core.errors import ConfigError
from headrace.core.layouts import Column, Kind
from headrace.core.quality import Quality


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("holding:100", "holding:100:U16"),
        ("holding:100:f32;order=cdab", "holding:100:F32;order=CDAB"),
        ("input:7:I16;scale=0.1;add=-40", "input:7:I16;scale=0.1;add=-40.0"),
        ("holding:1:U16;order=CDAB", "holding:1:U16"),
        ("holding:1:U16;order=DCBA", "holding:1:U16;order=BADC"),
        ("holding:4:U64", "holding:4:U64;order=ABCD"),
        ("coil:0", "coil:0"),
        ("discrete:65535", "discrete:65535"),
        ("holding:3.15", "holding:3.15"),
        ("holding:3.4:bit[20]", "holding:3.4:BIT[20]"),
        ("coil:7:BIT", "coil:7"),
        ("coil:7:BIT[3]", "coil:7:BIT[3]"),
        ("holding:100:F32[4];order=CDAB;scale=2", "holding:100:F32[4];order=CDAB;scale=2.0"),
        ("holding:100:F32[1]", "holding:100:F32;order=ABCD"),
        ("holding:100:U16[3];order=CDAB", "holding:100:U16[3];order=ABCD"),
        ("holding:100:str[8]", "holding:100:STR[8];order=ABCD"),
        ("holding:100:STR[1];order=BADC", "holding:100:STR[1];order=BADC"),
        ("input:5:bcd32", "input:5:BCD32;order=ABCD"),
        ("input:5:BCD16", "input:5:BCD16"),
        ("holding:3.0;add=2", "holding:3.0;add=2.0"),
    ],
)
def test_addresses_are_printed_in_full(text, normal):
    address = parse_address(text)
    assert str(address) == normal
    assert parse_address(normal) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("holding", "is not area:offset"),
        ("register:1", "areas: coil, discrete, holding, input"),
        ("holding:1:U8", "type 'U8', not one of U16"),
        ("holding:1:STR", "a text says how many bytes it has"),
        ("holding:1:STR[251]", r"STR\[1\] to STR\[250\]"),
        ("holding:1:STR[4];order=CDAB", "texts: ABCD or BADC"),
        ("holding:1:STR[4];scale=2", "a text has no scale"),
        ("holding:1:U16[0]", "0 is not 1 to 65535"),
        ("holding:65530:F32[4]", "starts at offset 65530"),
        ("holding:1:BIT", "has type 'BIT', not one of"),
        ("coil:1:U16", "coil items are single bits"),
        ("holding:1.3:U16", "a bit is .0 to .15"),
        ("holding:1.16", "a bit is .0 to .15"),
        ("coil:1.3", "a bit is .0 to .15"),
        ("holding:1;order=ABDC", "order ABDC, not one of"),
        ("coil:1;order=CDAB", "order CDAB"),
        ("holding:1;scale=0", "scale=0 is not"),
        ("holding:1;scale=much", "scale=much is not"),
        ("holding:1;add=inf", "add=inf is not"),
        ("holding:1;unit=3", "unit=3 is not"),
        ("holding:65535:U32", "starts at offset 65535"),
    ],
)
def test_wrong_addresses_say_what_is_allowed(text, why):
    with pytest.raises(ConfigError, match=why):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "numbering", "normal"),
    [
        ("holding:1", Numbering.ONE, "holding:0:U16"),
        ("40001", Numbering.MODICON, "holding:0:U16"),
        ("400101:F32;order=CDAB", Numbering.MODICON, "holding:100:F32;order=CDAB"),
        ("30002:I16", Numbering.MODICON, "input:1:I16"),
        ("10001", Numbering.MODICON, "discrete:0"),
        ("00017", Numbering.MODICON, "coil:16"),
        ("holding:5", Numbering.MODICON, "holding:5:U16"),
    ],
)
def test_other_ways_to_count(text, numbering, normal):
    assert str(parse_address(text, numbering)) == normal


@pytest.mark.parametrize(
    ("text", "numbering"),
    [
        ("holding:0", Numbering.ONE),
        ("40000", Numbering.MODICON),
        ("20001", Numbering.MODICON),
        ("40001", Numbering.ZERO),
    ],
)
def test_numbers_that_name_nothing(text, numbering):
    with pytest.raises(ConfigError, match="tag address"):
        parse_address(text, numbering)


def addresses(*texts):
    return [parse_address(text) for text in texts]


def test_neighbours_are_read_at_once_and_nothing_else():
    assert plan_reads(addresses("holding:10:F32", "holding:8:U32", "holding:14", "coil:3", "coil:5")) == (
        Block(Area.COIL, 3, 1), Block(Area.COIL, 5, 1), Block(Area.HOLDING, 8, 4), Block(Area.HOLDING, 14, 1),
    )  # fmt: skip


def test_gaps_are_read_only_where_that_is_wanted():
    assert plan_reads(addresses("holding:0", "holding:3", "holding:9"), bridge_gaps=2) == (
        Block(Area.HOLDING, 0, 4), Block(Area.HOLDING, 9, 1),
    )  # fmt: skip


def test_a_value_is_never_read_in_two_requests():
    texts = [f"holding:{i}:U32" for i in range(0, 252, 2)]
    blocks = plan_reads(addresses(*texts))
    assert [(b.start, b.count) for b in blocks] == [(0, 124), (124, 124), (248, 4)]
    assert plan_reads(addresses("holding:0:U64", "holding:2:U32"), max_registers=4) == (
        Block(Area.HOLDING, 0, 4),
    )


def test_bits_come_by_the_thousand():
    assert [b.count for b in plan_reads(addresses(*[f"discrete:{i}" for i in range(2_001)]))] == [2_000, 1]
    assert Block(Area.COIL, 0, 9).size_bytes == 2


def read_map(*texts, **plan):
    return compile_read_map(
        [RegisterTag(Column(f"s{i}", unit="u"), parse_address(text)) for i, text in enumerate(texts)], **plan
    )


def test_the_grid_of_an_address_goes_with_the_column():
    one = read_map("holding:0;scale=0.1;add=-40", "coil:0")
    first, second = (part.layout.columns[0] for part in one.parts)
    assert (first.scale, first.offset, first.kind, first.unit) == (0.1, -40.0, Kind.ANALOG, "u")
    assert second.kind is Kind.DISCRETE
    assert one.width == 2


def test_a_bit_keeps_the_kind_it_was_given():
    tag = RegisterTag(Column("alarm", Kind.EVENT), parse_address("holding:0.1"))
    assert compile_read_map([tag]).parts[0].layout.columns[0].kind is Kind.EVENT


def test_parts_are_named_by_value_type():
    assert [part.part for part in read_map("holding:0:F32", "holding:2", "holding:3", "coil:0").parts] == [
        "f32",
        "u16",
        "u8",
    ]


def test_a_device_without_tags_is_refused():
    with pytest.raises(ConfigError, match="without tags reads nothing"):
        compile_read_map([])


def test_values_that_are_not_finite_are_kept_and_marked():
    data = np.array([1.5, np.nan, np.inf], ">f4").tobytes()
    (found,) = read_map("holding:0:F32", "holding:2:F32", "holding:4:F32").decode(data)
    np.testing.assert_array_equal(found.values, np.array([[1.5, np.nan, np.inf]], np.float32))
    assert found.quality.tolist() == [[0, Quality.BAD_NOT_FINITE, Quality.BAD_NOT_FINITE]]


def test_many_responses_decode_in_one_call():
    """20,000 responses of 50 registers with their headers, as they came from the wire."""
    rng = np.random.default_rng(7)
    values = rng.integers(0, 65_536, (20_000, 50)).astype(np.uint16)
    raw = np.zeros((20_000, 9 + 100), np.uint8)
    raw[:, 9:] = values.astype(">u2").view(np.uint8)
    (found,) = read_map(*[f"holding:{i}" for i in range(50)]).decode(
        raw.tobytes(), header_bytes=9, stride_bytes=109
    )
    np.testing.assert_array_equal(found.values, values)
    assert found.values.dtype == np.uint16
    assert found.values.flags.c_contiguous
    assert found.quality is None


def test_half_a_response_is_not_decoded():
    with pytest.raises(ValueError, match="5 bytes are not a whole number of images of 4 bytes"):
        read_map("holding:0:F32").decode(bytes(5))
    with pytest.raises(ValueError, match="an image of 4 bytes does not fit in 5 bytes"):
        read_map("holding:0:F32").decode(bytes(10), header_bytes=2, stride_bytes=5)


def test_an_address_knows_its_size():
    assert [RegisterAddress(Area.INPUT, 0, t).count for t in ("U16", "I32", "F64")] == [1, 2, 4]
    assert Area.INPUT.function == 4


@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
def test_the_letters_of_an_order_are_the_bytes_on_the_wire(order):
    data = bytes(b"ABCD".index(letter) + 1 for letter in order.encode())
    (found,) = read_map(f"holding:0:U32;order={order}").decode(data)
    assert found.values.tolist() == [[0x01020304]]


@pytest.mark.parametrize("order", ["ABCD", "BADC"])
def test_one_register_has_two_orders(order):
    (found,) = read_map(f"holding:0:I16;order={order}", f"holding:1:I16;order={order}").decode(
        b"\x01\x02\xff\xfe"
    )
    assert found.values.tolist() == {"ABCD": [[0x0102, -2]], "BADC": [[0x0201, -257]]}[order]


def test_bits_of_coils_and_of_registers():
    one = read_map("coil:9", "coil:1", "holding:5.0", "holding:5.15", "holding:5.8", bridge_gaps=8)
    (found,) = one.decode(bytes([0b0000_0001, 0b0000_0001]) + b"\x80\x01")
    assert [b.area for b in one.blocks] == [Area.COIL, Area.HOLDING]
    assert found.values.tolist() == [[1, 1, 1, 1, 0]]
    assert found.values.dtype == np.uint8
