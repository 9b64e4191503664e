"""The scanner of JSON: what it leaves to the reference, and what becomes of what it takes."""

import numpy as np
import pytest
from tests.property.test_json_shapes import Both

from headrace.adapters.payloads import json_scanner as scanner
from headrace.adapters.payloads.json_scanner import JsonColumns
from headrace.adapters.payloads.json_shapes import JsonShapes

NESTED = b'{"ts": 1, "t": 1.5, "on": true, "s": "run", "n": null, "m": {"rpm": 1, "x": 2}}'
SHORT = b'{"ts": 1, "m": {"rpm": 1}}'
TABLE = b'{"ts": [1, 2, 3], "a": [1, 2.5, -3e2]}'


@pytest.mark.parametrize(
    "payload",
    [
        b'{"ts": 1, "t": 1.5, "on": tru', b'{"ts": 1, "t": 1.5, "on": trux, "s": 1}', b'{"ts": 1, "t":', b'{"ts": 1, "t": 1.5}',
        b'{"ts": 1, "t": 1.5, "on": true, "s": "run", "n": null, "m": {"rpm": 1, "x": 2}', b'{"ts": [1e300], "a": [1]}',
        b'{"ts": "2026-0x-23T15:06:00Z", "t": 1.5}', b'{"ts": "2026-11-23T15:06:00.Z"}', b'{"ts": "2026-11-23T15:06:00+25:00"}',
        b'{"ts": 1, "t": 1', b'{"ts": 1, "t": 1.}', b'{"ts": 1, "t": 1e}', b'{"ts": 1, "t": 1e99999}', b'{"ts": "2026-11-23x15:06:00Z"}',
        b'{"ts": "2026-11-23T15:06:00+0100"}', b'{"ts": [1 2], "a": [1, 2]}', b'{"ts": [1, 2], "a": [1 2]}',
    ],
)  # fmt: skip
def test_what_is_odd_is_left_to_the_reference(payload):
    both = Both(time="ts")
    for _ in range(2):
        both.check([NESTED, SHORT, TABLE] * 3)
        both.check([b'{"ts": "2026-11-23T15:06:00Z", "m": {"rpm": 1}}'] * 3)
    found = both.check([payload, NESTED, SHORT])
    assert found <= 2, "its device is left too"


def test_what_ends_within_a_known_shape_is_no_row():
    both = Both(time="ts")
    for _ in range(2):
        both.check([b'{"ts": 1, "m": {"a": 1, "b": 2}}'] * 3)
    assert both.check([b'{"ts": 1, "m": {"a": 1}}'] * 3) == 0
    assert both.check([b'{"ts": 1, "m": {"a": 1}}'] * 3) == 3, "and is known the next time"


@pytest.mark.parametrize("end", ["00Z", "00.1234567891Z", "59,5z", "00.25+05:30", "00-00:30"])
def test_times_of_text(end):
    both, payload = Both(time="ts"), f'{{"ts": "2026-11-23T15:06:{end}", "a": 1}}'.encode()
    for _ in range(2):
        both.check([payload] * 3)
    assert both.check([payload] * 3) == 3


@pytest.mark.parametrize(
    "payload",
    [
        b"[1]", b'{"k": 1 "data": {"rows": {"a": 1}}, "ts": 1}', b"{1: 2}", b'{"k" 1}', b'{"data": 5, "ts": 1}',
        b'{"data": {"rows": {"a": 1}, "rows": {"a": 2}}, "ts": 1}', b'{"ts": 1, "ts": 2, "data": {"rows": {"a": 1}}}',
        b'{"ts": null, "data": {"rows": {"a": 1}}}', b'{"k": {}, "data": {"rows": {"a": 1}}, "ts": 1}', b'{"data": {}, "ts": 1}',
    ],
)  # fmt: skip
def test_what_is_odd_around_the_root_is_left_to_the_reference(payload):
    both = Both(root="data.rows", time="ts")
    good = b'{"k": true, "data": {"rows": {"a": 1}, "n": 7}, "ts": 1}'
    for _ in range(2):
        both.check([good] * 3)
    assert both.check([good] * 3) == 3
    assert both.check([payload] * 3) == 0


def test_rows_with_a_time_of_their_own_keep_it():
    both = Both(root="rows", time="ts")
    payload = b'{"ts": 1, "rows": [{"ts": 2, "a": 1}, {"a": 2}]}'
    for _ in range(2):
        both.check([payload] * 3)
    assert both.check([payload] * 3) == 3


@pytest.mark.parametrize(
    ("n_rows", "n_values", "payload", "is_read"),
    [
        (9, 9, TABLE, 1), (2, 9, TABLE, 0), (9, 2, b'{"ts": 1, "a": 1, "b": 2}', 1), (9, 1, b'{"ts": 1, "a": 1, "b": 2}', 0),
        (1, 9, b'[{"ts": 1, "a": 1, "b": 2}, {"ts": 2, "a": 1, "b": 2}]', 0),
    ],
)  # fmt: skip
def test_columns_without_room_leave_a_message_aside(n_rows, n_values, payload, is_read):
    shapes = JsonShapes((), ("ts",), 10**9)
    for item in ({"ts": [1, 2], "a": [1, 2]}, {"ts": 1, "a": 1, "b": 2}):
        shapes.learn(item)
    rows = np.zeros((5, n_rows), np.int64)
    ints = np.zeros(n_values, np.int64)
    columns = JsonColumns(rows, *rows, ints, ints.view(np.float64), np.zeros(scanner.N_COUNTS, np.int64))
    found = np.zeros(1, np.uint8)
    data = np.frombuffer(payload, np.uint8)
    scanner.scan(data, np.array([len(payload)]), shapes.tables, columns, found)
    assert found.tolist() == [is_read]
    assert bool(columns.counts[scanner.ROWS]) == bool(is_read)


def test_an_object_as_a_time_is_no_shape():
    both = Both(time="ts")
    for _ in range(3):
        assert both.check([b'{"ts": {"x": 1}, "a": 1}', b'{"ts": true, "a": 1}', b'{"ts": 1, "a": []}']) == 0


def test_whole_numbers_keep_their_type_and_others_are_refused():
    both = Both(types={"a": "i64", "b": "i64"})
    for _ in range(2):
        both.check([b'{"a": 1, "b": 2}'] * 3)
    assert both.check([b'{"a": 3, "b": 4}', b'{"a": 3.5, "b": 4}', b'{"a": -7, "b": 0}']) == 3
    assert both.check([b'{"a": 3, "b": 4}'] * 3) == 3


def test_rows_with_some_of_a_devices_keys():
    both = Both(max_keys=20)
    wide = b'{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "s": "x", "u": "y", "v": "z"}'
    some = [b'{"a": 7, "c": 8, "e": 9}', b'{"b": 1}', b'{"s": "y", "u": "n"}', b'{"v": "q"}']
    for _ in range(2):
        both.check([wide] * 3)
        both.check([one for one in some for _ in range(3)])
    assert both.check([one for one in some for _ in range(3)]) == 12


def test_more_devices_than_there_was_room_for():
    both, payloads = Both(), [b'{"a": %d}' % i for i in range(150)]
    for _ in range(2):
        both.check(payloads, 150)
    assert both.check(payloads, 150) == 150
