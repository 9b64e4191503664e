"""Built-in payload decoders pass the public kit."""

from __future__ import annotations

import base64
import struct

import pyarrow as pa
import pytest

from headrace.adapters.payloads.arrow import ArrowPayload
from headrace.adapters.payloads.csv import CsvDecoder
from headrace.adapters.payloads.json import FieldsDecoder
from headrace.adapters.payloads.line import LinePayload
from headrace.adapters.payloads.register_messages import RegistersDecoder
from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_messages import SparkplugDecoder
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.testing import payloads as kit


def stream(**columns):
    table, sink = pa.record_batch(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()


LINES = [
    b"m a=1.5,b=t 1700000000000000000\nm a=2 1700000000000000001",
    b'n,host=h s="on, \n off",a=3i',
    b"m a=4",
]
TABLES = [
    stream(ts=[1, 2], a=[1.5, None], b=[True, False]),
    stream(ts=[3], a=[3.5]),
    stream(ts=[4], s=["on"]),
]


def sparkplug(value, seq):
    one = SparkplugValue(value, DataType.DOUBLE, "t", 3, 1_795_446_000_000 + seq)
    return write_payload(None, seq, [one])


IMAGES = [struct.pack(">fHh", 1.5, 7, -3), struct.pack(">fHh", 2.5, 8, -4)]
REGISTERS = {
    "values": "registers",
    "registers": {"t": "holding:0:F32", "n": "holding:2:U16", "run": "coil:3", "x": "holding:3:I16"},
}
CASES = {
    "registers": (RegistersDecoder, IMAGES, REGISTERS),
    "registers in hex": (
        RegistersDecoder,
        [image.hex().encode() for image in IMAGES],
        {**REGISTERS, "encoding": "hex"},
    ),
    "registers in base64": (
        RegistersDecoder,
        [base64.b64encode(image) for image in IMAGES],
        {**REGISTERS, "encoding": "base64"},
    ),
    "fields": (FieldsDecoder, [b'{"a": 1.5, "b": true}', b'{"a": 2}', b'{"s": "on", "a": 3}'], {}),
    "sparkplug": (
        SparkplugDecoder,
        [sparkplug(1.5, 0), sparkplug(2.5, 1)],
        {},
    ),
    "csv": (CsvDecoder, [b"1,2\n3,4", b"5,6"], {"columns": ("a", "b")}),
    "line": (LinePayload, LINES, {"path": f"{kit.DEVICE}/{{measurement}}/{{key}}"}),
    "arrow": (ArrowPayload, TABLES, {"time": "ts"}),
}


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_payload(name, check):
    make, messages, rule = CASES[name]
    check(make, messages, **rule)


def test_the_kit_notices_a_decoder_that_breaks_its_promises():
    class Raises(FieldsDecoder):
        def read(self, message, group, rows):
            if b"\xff" in message.payload or b"9" in message.payload:
                raise ValueError("not for me")
            super().read(message, group, rows)

    class Forgets(FieldsDecoder):
        def read(self, message, group, rows):
            if message.arrival_ns == kit.ARRIVAL_NS:
                super().read(message, group, rows)

    class Leaves(FieldsDecoder):
        def read_many(self, pile, rows):
            return range(len(pile.messages))

    messages = [b'{"a": 1}', b'{"a": 2}']
    with pytest.raises(AssertionError, match="2 of 2 messages are left"):
        kit.check_many_are_as_one_by_one(Leaves, messages)
    with pytest.raises(ValueError, match="not for me"):
        kit.check_garbage_is_refused(Raises, messages)
    with pytest.raises(AssertionError, match="nothing was read"):
        kit.check_good_messages_are_taken(FieldsDecoder, [b"{}"])
    assert kit.read(Forgets, messages).samples == kit.read(FieldsDecoder, messages[:1]).samples
