"""What other people's lists call things."""

import pytest

from headrace.core.profile_tables import number_text
from headrace.ingest.tag_words import (
    HEADINGS,
    UNITS,
    column_of,
    dtype_of,
    is_boolean,
    kind_of,
    labels_of,
    number_of,
    unit_of,
)


@pytest.mark.parametrize(
    ("heading", "column"),
    [
        ("Tag Name", "signal"), ("TAGNAME", "signal"), ("Messstelle", "signal"), ("Gerät", "device"), ("Máquina", "device"),
        ("Register-Adresse", "address"), ("Data type", "dtype"), ("Eng. Unit", "unit"), ("Unit (SI)", "unit"),
        ("Einheit [EU]", "unit"), ("Min.", "low"), ("EU Hi", "high"), ("scan rate", "interval"), ("path", "path"),
        ("Bemerkung", None), ("", None),
    ],
)  # fmt: skip
def test_headings_are_understood_in_many_words(heading, column):
    assert column_of(heading) == column


def test_no_word_means_two_things():
    from headrace.ingest import tag_words

    for words in (tag_words._HEADINGS, tag_words._TYPES, tag_words._KINDS):
        every = [word for some in words.values() for word in some.split()]
        assert sorted(set(every)) == sorted(every)
    every = [alias for some in tag_words._UNIT_ALIASES.values() for alias in some.split("|")]
    assert sorted(set(every)) == sorted(every)
    assert set(tag_words._UNIT_ALIASES) - {""} <= set(UNITS)
    assert len(set(UNITS)) == len(UNITS)
    assert not set(every) & set(UNITS)
    assert HEADINGS["uom"] == "unit"


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("REAL", "f32"), ("LReal", "f64"), ("WORD", "u16"), ("UINT16", "u16"), ("DINT", "i32"), ("float 32", "f32"),
        ("F32", "f32"), ("BOOL", "u8"), ("String", "string"), ("VARCHAR", "string"), ("FLOT", None),
    ],
)  # fmt: skip
def test_types_of_plcs_are_understood(text, dtype):
    assert dtype_of(text) == dtype


def test_two_states_are_known_from_a_byte():
    assert is_boolean("Bool")
    assert is_boolean("BIT")
    assert not is_boolean("byte")


def test_kinds_are_understood():
    assert [kind_of(t) for t in ("AI", "Digital", "Zähler", "analog", "waveform", "odd")] == [
        "analog", "discrete", "counter", "analog", "waveform", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("°C", "degC"), (" C ", "degC"), ("Celsius", "degC"), ("m³/h", "m3/h"), ("[bar]", "bar"), ("[°C]", "degC"), ("%", "%"),
        ("kWh", "kWh"), ("KWH", "kWh"), ("-", ""), ("n/a", ""), ("furlong", "furlong"), ("", ""), ("U/min", "rpm"), ("[]", ""),
        ("DEGREE CELSIUS", "degC"),
    ],
)  # fmt: skip
def test_units_become_one_spelling(text, unit):
    assert unit_of(text) == unit
    assert unit_of(unit) == unit


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,5", 1.5), ("1.5", 1.5), ("-3", -3.0), ("1.234,5", 1234.5), ("1,234.5", 1234.5), ("1.234.567", 1234567.0),
        ("1'000,5", 1000.5), ("1 000", 1000.0), ("1e3", 1000.0), ("+2,5E-1", 0.25), ("", None), ("abc", None), ("1.2.3,4,5", None),
        ("1e999", None), (",5", None), ("5,", 5.0),
    ],
)  # fmt: skip
def test_numbers_have_points_or_commas(text, number):
    assert number_of(text) == number


def test_numbers_are_written_so_that_they_come_back():
    for number in (0.0, 1.0, -3.0, 0.1, 1e15, 1e300, -0.25, 123456789.125):
        assert float(number_text(number)) == number
    assert number_text(400.0) == "400"


def test_states_are_named_by_number_or_in_order():
    assert labels_of("0=stopped; 1=running") == ["stopped", "running"]
    assert labels_of("1:on,0:off,") == ["off", "on"]
    assert labels_of("1=on|2=off") is None
    assert labels_of("a|b") == ["a", "b"]
    assert labels_of("open; closed") == ["open", "closed"]
    assert labels_of(" alone ") == ["alone"]
