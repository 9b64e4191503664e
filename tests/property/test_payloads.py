"""Payload decoders against independent oracles: registers of every type and order, messages value by value."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.register_addresses import (
    ORDERS,
    TYPES,
    Area,
    RegisterAddress,
    elements,
    parse_address,
)
from headrace.adapters.payloads.registers import RegisterTag, compile_read_map, plan_reads
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.frames import Shape
from headrace.core.layouts import Column, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory

FORMATS = {"U16": "H", "I16": "h", "U32": "I", "I32": "i", "U64": "Q", "I64": "q", "F32": "f", "F64": "d"}

# --- registers ---------------------------------------------------------------------------------------


def oracle(registers, address):
    """One value, by struct, from 16-bit registers."""
    if address.type == "BIT":
        return registers[address.offset] >> address.bit & 1
    words = list(registers[address.offset : address.offset + address.count])
    if address.order in ("CDAB", "DCBA"):
        words.reverse()
    data = b"".join(struct.pack("<H" if address.order in ("BADC", "DCBA") else ">H", word) for word in words)
    return struct.unpack(">" + FORMATS[address.type], data)[0]


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


@st.composite
def addresses(draw, area=None):
    area = area or draw(st.sampled_from(Area))
    offset = draw(st.integers(0, 200))
    if area.has_bits:
        return RegisterAddress(area, offset, "BIT")
    if draw(st.booleans()):
        return RegisterAddress(area, offset, "BIT", bit=draw(st.integers(0, 15)))
    return RegisterAddress(area, offset, draw(st.sampled_from(TYPES)), order=draw(st.sampled_from(ORDERS)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=25)
@given(
    noise=st.binary(min_size=256, max_size=256), n=st.integers(1, 5), n_frames=st.integers(1, 4),
    is_contiguous=st.booleans(), header=st.integers(0, 9),
)  # fmt: skip
def test_every_type_in_every_order(kind, order, noise, n, n_frames, is_contiguous, header):
    size = int(kind[1:]) // 16
    step = size if is_contiguous else size + 1
    tags = [
        RegisterTag(Column(f"s{i}"), RegisterAddress(Area.HOLDING, 7 + i * step, kind, order=order))
        for i in range(n)
    ]
    read_map = compile_read_map(tags, bridge_gaps=1)
    (block,) = read_map.blocks
    polls = [struct.unpack_from(">60H", noise, 2 * i) for i in range(n_frames)]
    raw = b"".join(
        bytes(header) + struct.pack(f">{block.count}H", *p[block.start :][: block.count]) for p in polls
    )
    (found,) = read_map.decode(raw, header_bytes=header)
    assert found.values.shape == (n_frames, n)
    assert found.values.dtype == numpy_dtype(tags[0].address.dtype)
    for poll, values in zip(polls, found.values.tolist(), strict=True):
        for tag, value in zip(tags, values, strict=True):
            assert same(value, oracle(poll, tag.address))
    if found.quality is not None:
        assert ((found.quality == Quality.BAD_NOT_FINITE) == ~np.isfinite(found.values)).all()


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), min_size=1, max_size=4),
    st.integers(1, 60), st.sampled_from(["ABCD", "BADC"]), st.booleans(),
)  # fmt: skip
def test_texts_of_any_length(texts, length, order, is_second):
    """Against plain bytes: cut at the length, ended by NUL, blanks at the end are padding."""
    tags = [RegisterTag(Column("t"), RegisterAddress(Area.HOLDING, 3, "STR", order=order, length=length))]
    if is_second:
        other = RegisterAddress(Area.HOLDING, 3 + (length + 1) // 2, "STR", length=2)
        tags.append(RegisterTag(Column("u"), other))
    read_map = compile_read_map(tags)
    images, expected = [], []
    for text in texts:
        raw = text.encode()[:length].ljust(length + length % 2, b"\0")
        stored = b"".join(raw[i : i + 2][:: -1 if order == "BADC" else 1] for i in range(0, len(raw), 2))
        images.append(stored + (b"ab" if is_second else b""))
        cut = text.encode()[:length]
        try:
            expected.append(cut.decode().rstrip())
        except UnicodeDecodeError:
            expected.append(cut.decode("latin-1").rstrip())
    (found,) = read_map.decode(b"".join(images))
    assert [found.dictionary[code] for code in found.values[:, 0].tolist()] == expected
    if is_second:
        assert {found.dictionary[code] for code in found.values[:, 1].tolist()} == {"ab"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["BCD16", "BCD32"])
@given(numbers=st.lists(st.integers(0, 99_999_999), min_size=1, max_size=5), is_mixed=st.booleans())
def test_decimals_in_every_order(kind, order, numbers, is_mixed):
    size = int(kind[3:]) // 16
    address = RegisterAddress(Area.INPUT, 5, kind, order=order)
    plain = RegisterAddress(Area.INPUT, 5, f"U{kind[3:]}", order=order)
    tags = [RegisterTag(Column("d"), address)]
    if is_mixed:
        tags.append(RegisterTag(Column("u"), plain))
    read_map = compile_read_map(tags)
    numbers = [number % 10 ** (4 * size) for number in numbers]
    images = []
    for number in numbers:
        words = list(struct.unpack(f">{size}H", bytes.fromhex(f"{number:0{4 * size}d}")))
        if order in ("CDAB", "DCBA"):
            words.reverse()
        images.append(struct.pack(f"{'<' if order in ('BADC', 'DCBA') else '>'}{size}H", *words))
    (found,) = read_map.decode(b"".join(images))
    assert found.values[:, 0].tolist() == numbers
    assert found.quality is None
    if is_mixed:
        assert found.values[:, 1].tolist() == [int(str(number), 16) for number in numbers]
    (bad,) = read_map.decode(images[0] + bytes([0xAA] * 2 * size))
    assert bad.quality[:, 0].tolist() == [Quality.GOOD, Quality.BAD_TYPE]
    assert bad.values[1, 0] == 0


@given(
    st.sampled_from(TYPES), st.sampled_from(ORDERS), st.integers(1, 300), st.integers(0, 50),
    st.integers(4, 125), st.binary(min_size=64, max_size=64),
)  # fmt: skip
def test_arrays_are_their_values_one_by_one(kind, order, length, offset, max_registers, noise):
    """An array may be longer than a request; it is read as its values alone would be."""
    array = RegisterAddress(Area.HOLDING, offset, kind, order=order, length=length)
    size = int(kind[1:]) // 16
    assert array.count == length * size
    read_map = compile_read_map([RegisterTag(Column("a"), array)], max_registers=max_registers)
    assert all(block.count <= max_registers for block in read_map.blocks)
    (part,) = read_map.parts
    assert [c.name for c in part.layout.columns] == (
        [f"a_{i}" for i in range(length)] if length > 1 else ["a"]
    )
    data = (noise * 40)[: read_map.image_bytes]
    (found,) = read_map.decode(data)
    registers = [0] * offset + list(struct.unpack(f">{len(data) // 2}H", data))
    for i, value in enumerate(found.values[0].tolist()):
        assert same(
            value, oracle(registers, RegisterAddress(Area.HOLDING, offset + i * size, kind, order=order))
        )


@given(st.integers(0, 15), st.integers(1, 40), st.binary(min_size=8, max_size=8))
def test_bit_arrays_run_through_registers(bit, length, noise):
    address = RegisterAddress(Area.HOLDING, 9, "BIT", bit, length=length)
    read_map = compile_read_map([RegisterTag(Column("b"), address)])
    (found,) = read_map.decode(noise[: read_map.image_bytes])
    registers = struct.unpack(">4H", noise)
    expected = [registers[(bit + i) // 16] >> (bit + i) % 16 & 1 for i in range(length)]
    assert found.values[0].tolist() == expected


@given(
    st.lists(addresses(), min_size=1, max_size=30),
    st.integers(0, 3),
    st.integers(4, 125),
    st.integers(1, 2_000),
    st.data(),
)
def test_a_device_of_many_tags(found, bridge_gaps, max_registers, max_bits, data):
    tags = [RegisterTag(Column(f"s{i}"), address) for i, address in enumerate(found)]
    read_map = compile_read_map(tags, bridge_gaps, max_registers, max_bits)
    tables = {area: data.draw(st.binary(min_size=500, max_size=500)) for area in Area}
    images = []
    for block in read_map.blocks:
        assert block.count <= (max_bits if block.area.has_bits else max_registers)
        if block.area.has_bits:
            bits = np.unpackbits(np.frombuffer(tables[block.area], np.uint8), bitorder="little")
            images.append(np.packbits(bits[block.start :][: block.count], bitorder="little").tobytes())
        else:
            images.append(tables[block.area][2 * block.start :][: 2 * block.count])
        assert len(images[-1]) == block.size_bytes
    image = b"".join(images)
    assert len(image) == read_map.image_bytes
    decoded = dict(zip([p.part for p in read_map.parts], read_map.decode(image * 2), strict=True))
    columns = {p.part: [c.name for c in p.layout.columns] for p in read_map.parts}
    for tag in tags:
        part = tag.address.dtype
        at = columns[part].index(tag.column.name)
        table = tables[tag.address.area]
        if tag.address.area.has_bits:
            expected = table[tag.address.offset // 8] >> tag.address.offset % 8 & 1
        else:
            expected = oracle(struct.unpack(">250H", table), tag.address)
        for value in decoded[part].values[:, at].tolist():
            assert same(value, expected)


@given(st.lists(addresses(), min_size=1, max_size=30), st.integers(4, 125), st.integers(1, 2_000))
def test_only_what_is_configured_is_read(found, max_registers, max_bits):
    wanted = {(a.area, a.offset + i) for a in found for i in range(a.count)}
    blocks = plan_reads(found, 0, max_registers, max_bits)
    read = [(b.area, b.start + i) for b in blocks for i in range(b.count)]
    assert set(read) == wanted
    for address in found:
        assert any(
            b.area is address.area
            and b.start <= address.offset
            and address.offset + address.count <= b.start + b.count
            for b in blocks
        )


@given(
    addresses(), st.floats(allow_nan=False, allow_infinity=False).filter(bool), st.floats(-1e6, 1e6),
    st.integers(1, 200), st.sampled_from([None, "STR", "BCD16", "BCD32"]),
)  # fmt: skip
def test_addresses_are_read_back(address, scale, add, length, other):
    if other is not None:
        address = RegisterAddress(Area.INPUT, address.offset, other, order="BADC")
    if replace(address, length=1).count == 1:
        address = replace(address, order={"CDAB": "ABCD", "DCBA": "BADC"}.get(address.order, address.order))
    whole = replace(address, length=length)
    if other != "STR":
        whole = replace(whole, scale=scale, add=add)
    assert parse_address(str(whole)) == whole
    parts = elements(whole)
    assert len(parts) == whole.n_values == (1 if other == "STR" else length)
    assert parts[0].offset == whole.offset
    assert parts[-1].offset + parts[-1].count == whole.offset + whole.count


# --- messages ----------------------------------------------------------------------------------------

TOPIC = "plant/d1"
SCALARS = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.integers(-(2**70), 2**70), st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
KEYS = st.sampled_from(["a", "b", "c", "motor", "x y", "", "a/b", "+"]) | st.text(max_size=3)
OBJECTS = st.recursive(
    st.dictionaries(KEYS, SCALARS, max_size=5),
    lambda inner: st.dictionaries(KEYS, SCALARS | inner | st.lists(SCALARS, max_size=2), max_size=4),
    max_leaves=8,
)
PAYLOADS = st.one_of(
    OBJECTS.map(json.dumps).map(str.encode), st.lists(OBJECTS, max_size=4).map(json.dumps).map(str.encode),
    st.binary(max_size=30), SCALARS.map(json.dumps).map(str.encode),
)  # fmt: skip


def router(**settings):
    rules = compile_rules({"plant/{device}": RuleSettings(**settings)}, (), "UTC", "adapters.x.topics")
    return MessageRouter("x", rules, DeviceGroups(SensorDirectory()))


def rows_of(directory, batches):
    """Every sample as (key, ts_ns, value), in the order of the frames."""
    out = []
    for batch in batches:
        batch.check_columns()
        for frame in range(batch.n_frames):
            layout = directory.layout(int(batch.slot[frame]))
            one = batch.slice(frame, frame + 1)
            columns = range(layout.width) if one.shape is Shape.DENSE else one.column.tolist()
            quality = np.zeros(one.values.size, np.uint8) if one.quality is None else one.quality.reshape(-1)
            for column, value, mark in zip(
                columns, one.values.reshape(-1).tolist(), quality.tolist(), strict=True
            ):
                if mark != Quality.ABSENT:
                    text = batch.dictionary[value] if batch.dictionary else value
                    out.append((layout.columns[column].name, int(one.ts_ns[0]), text))
    return out


def leaves(value):
    """Number of values in decoded JSON: what is not null, an empty list or an object."""
    if isinstance(value, dict):
        return sum(map(leaves, value.values()))
    return value is not None


@example([b'{"": {"a": false, "b": [1], "c": null, "d": {"e": 1}}}'], 1)
@given(st.lists(PAYLOADS, max_size=8), st.integers(1, 8))
def test_every_json_value_is_a_sample_or_in_a_reject(payloads, max_keys):
    directory = SensorDirectory()
    rules = compile_rules({"#": RuleSettings(path="l/d/{key}", max_keys=max_keys)}, (), "UTC", "t")
    out = MessageRouter("x", rules, DeviceGroups(directory)).decode(
        [TopicMessage(TOPIC, payload, 10**18 + i) for i, payload in enumerate(payloads)], 10**18
    )
    n_values = 0
    for payload in payloads:
        try:
            data = json.loads(payload, parse_constant=lambda text: pytest.fail(text))
        except ValueError:
            continue
        if isinstance(data, dict):
            n_values += leaves(data)
        elif isinstance(data, list):
            n_values += sum(map(leaves, data))
    n_samples = sum(batch.n_samples for batch in out.batches)
    assert n_samples == len(rows_of(directory, out.batches))
    assert n_samples + sum(reject.n_samples for reject in out.rejects) >= n_values
    assert directory.n_sensors <= max_keys
    assert all(reject.code != "internal" for reject in out.rejects), out.rejects


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abcdefgh"), st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
        ).filter(bool),
        min_size=1, max_size=12,
    ),
    st.integers(1, 5),
)  # fmt: skip
def test_numbers_arrive_exactly_in_order_however_they_are_cut(objects, n_slices):
    directory = SensorDirectory()
    rules = compile_rules({"#": RuleSettings(path="l/d/{key}", time="t", time_unit="ns")}, (), "UTC", "x")
    decoder = MessageRouter("x", rules, DeviceGroups(directory))
    messages = [
        TopicMessage(TOPIC, json.dumps({"t": 10**18 + i, **one}).encode(), 5) for i, one in enumerate(objects)
    ]
    found = []
    for part in np.array_split(np.arange(len(messages)), n_slices):
        out = decoder.decode([messages[i] for i in part], 7)
        assert not out.rejects
        times = np.concatenate([b.ts_ns for b in out.batches]) if out.batches else np.zeros(0)
        assert (np.diff(times) > 0).all(), "frames of a device keep their order"
        found += rows_of(directory, out.batches)
    expected = [
        (key, 10**18 + i, float(value)) for i, one in enumerate(objects) for key, value in one.items()
    ]
    assert sorted(found) == sorted(expected)


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=6), st.sampled_from(["f64", "i64", None]))
def test_integers_are_never_rounded(values, kind):
    directory = SensorDirectory()
    types = {} if kind is None else {"v": kind}
    rules = compile_rules({"#": RuleSettings(path="l/d/{key}", types=types)}, (), "UTC", "x")
    out = MessageRouter("x", rules, DeviceGroups(directory)).decode(
        [TopicMessage(TOPIC, b'{"v": %d}' % value, i) for i, value in enumerate(values)], 7
    )
    found = [value for _, _, value in rows_of(directory, out.batches)]
    assert all(value in values for value in found)
    assert len(found) + sum(reject.n_samples for reject in out.rejects) == len(values)
    assert {reject.code for reject in out.rejects} <= {"wrong-type"}


@given(st.binary(max_size=60), st.sampled_from(["fields", "number", "csv", "line", "arrow"]))
def test_no_bytes_break_a_decoder(payload, values):
    directory = SensorDirectory()
    path = {"number": "l/d", "line": "l/{measurement}/{key}"}.get(values, "l/d/{key}")
    rules = compile_rules({"#": RuleSettings(path=path, values=values)}, (), "UTC", "x")
    out = MessageRouter("x", rules, DeviceGroups(directory)).decode([TopicMessage(TOPIC, payload, 5)], 7)
    rows_of(directory, out.batches)
    assert all(reject.code != "internal" for reject in out.rejects), out.rejects


CELLS = st.one_of(
    st.just(""),
    st.booleans().map(str),
    st.integers(-(2**60), 2**60).map(str),
    st.floats().map(repr),
    st.text('xyz ,"\n', max_size=4),
)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=6))
def test_every_csv_cell_is_a_sample_or_in_a_reject(lines):
    import csv
    import io

    text = io.StringIO()
    csv.writer(text).writerows(lines)
    directory = SensorDirectory()
    rules = compile_rules(
        {"#": RuleSettings(path="l/d/{key}", values="csv", columns=("a", "b"))}, (), "UTC", "x"
    )
    payload = text.getvalue().encode()
    out = MessageRouter("x", rules, DeviceGroups(directory)).decode([TopicMessage(TOPIC, payload, 5)], 7)
    n_cells = sum(bool(cell.strip()) for line in lines for cell in line)
    n_samples = sum(batch.n_samples for batch in out.batches)
    assert n_samples == len(rows_of(directory, out.batches))
    assert n_samples + sum(reject.n_samples for reject in out.rejects) == n_cells


def test_a_message_of_lines_that_is_larger_than_a_slice():
    """More lines and values than there is room for at first, alone and among others."""
    directory = SensorDirectory()
    rule = RuleSettings(path="l/{measurement}/{key}", values="line")
    router = MessageRouter("x", compile_rules({"#": rule}, (), "UTC", "x"), DeviceGroups(directory))
    large = b"".join(b"m a=%d %d\n" % (i % 10, i) for i in range(80_000))
    assert 512 << 10 < len(large) < 1_000_000
    out = router.decode(
        [TopicMessage(TOPIC, payload, 5) for payload in (b"m a=1 5", large, b"m b=1,a=2 6")], 7
    )
    assert (sum(batch.n_samples for batch in out.batches), out.rejects) == (80_003, [])
