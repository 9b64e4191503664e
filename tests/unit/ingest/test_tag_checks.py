"""What is wrong with a tag table, row by row."""

import pytest

from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.ingest.tag_checks import TagChecks
from headrace.ingest.tag_rows import TagRow

LEVELS = ("site", "device", "signal")


def read_address(row):
    return ModbusAdapter.tag_address(row.address, row.dtype, {}) if row.url.startswith("modbus") else None


def check(*rows):
    return TagChecks(LEVELS, read_address).check(rows)


def problem(**cells):
    (row,) = check(TagRow(**{"path": "leon/o1/t", **cells}))
    return row.problem


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"path": ""}, "has no path"),
        ({"path": "leon/t"}, "the path has 2 levels, expected 3: site/device/signal"),
        (
            {"path": "leon/Oven #1/t"},
            "'leon/Oven #1/t' can't be a path; 'leon/Oven_1/t' can (--tidy makes it so)",
        ),
        ({"path": "##"}, "'##' can't be a path"),
        ({"dtype": "FLOT"}, "type 'FLOT' is not known; write one of u8, i8,"),
        ({"kind": "odd"}, "kind 'odd' is not one of analog,"),
        ({"unit": "12,5"}, "'12,5' can't be a unit"),
        ({"unit": "x" * 33}, "can't be a unit"),
        ({"unit": "a\x01"}, "can't be a unit"),
        ({"low": "x"}, "low 'x' is not a number"),
        ({"low": "2", "high": "1"}, "limits 2.0 to 1.0 leave nothing"),
        ({"url": "modbus+tcp://u:p@h"}, "url: a password does not belong into a URL"),
        ({"url": "10.0.0.1"}, "'10.0.0.1' is not a url"),
        ({"url": "x://h:99999"}, "url: Port out of range"),
        ({"url": "modbus+tcp://h", "address": "register:1"}, "tag address 'register:1' is not area:offset"),
    ],
)
def test_each_problem_is_told_in_words(cells, said):
    assert said in problem(**cells)


def test_a_good_row_has_no_problem_and_keeps_one_that_was_known():
    assert problem(unit="degC", dtype="string", low="0", high="1", kind="discrete", labels="a|b") == ""
    (row,) = check(TagRow(path="", problem="nothing says its path"))
    assert row.problem == "nothing says its path"


def test_what_is_there_twice_names_the_line_of_the_first():
    rows = check(
        TagRow(path="leon/o1/t", url="modbus+tcp://h", address="holding:1"),
        TagRow(path="leon/o1/t", url="modbus+tcp://h", address="holding:2"),
        TagRow(path="leon/o1/u", url="modbus+tcp://h", address="holding:1:U16"),
        TagRow(path="leon/o2/u", url="modbus+tcp://h?unit=2", address="holding:1"),
        TagRow(path="leon/o2/v", url="modbus+tcp://h?unit=3", address="holding:2"),
    )
    assert [row.problem for row in rows] == [
        "", "the path is in line 2 already", "", "", "its device is at modbus+tcp://h?unit=2 in line 5",
    ]  # fmt: skip
    assert [row.remark for row in rows] == ["", "", "line 2 has the same address", "", ""]


def test_addresses_of_other_protocols_are_compared_as_they_stand():
    rows = check(
        TagRow(path="leon/o1/t", address="ns=2;s=a"), TagRow(path="leon/o1/u", address="ns=2;s=a"),
        TagRow(path="leon/o2/t", address="topic", signal="t"), TagRow(path="leon/o2/u", address="topic", signal="u"),
    )  # fmt: skip
    assert [row.remark for row in rows] == ["", "line 2 has the same address", "", ""]


def test_an_address_is_completed_and_counts_more_than_the_list():
    rows = check(
        TagRow(path="leon/o1/a", url="modbus+tcp://h", address="holding:1", dtype="f32"),
        TagRow(path="leon/o1/b", url="modbus+tcp://h", address="holding:3:I16", dtype="f32"),
        TagRow(path="leon/o1/c", url="modbus+tcp://h", address="holding:9", dtype="FLOT"),
        TagRow(path="leon/o1/d", url="modbus+tcp://h", address="coil:9"),
    )
    assert [(row.address, row.dtype) for row in rows] == [
        ("holding:1:F32", "f32"), ("holding:3:I16", "i16"), ("holding:9", "FLOT"), ("coil:9", "u8"),
    ]  # fmt: skip
    assert rows[1].remark == "the list says f32, the address i16: that counts"


def test_a_unit_that_nobody_knows_is_kept_and_shown():
    rows = check(
        TagRow(path="leon/o1/t", unit="kWhh"), TagRow(path="leon/o1/u", unit="furlong", remark="old")
    )
    assert rows[0].remark.startswith("unit 'kWhh' is kept as it stands; did you mean 'kWh'")
    assert rows[1].remark == "unit 'furlong' is kept as it stands"
