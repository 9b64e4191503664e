"""Conversion of units, resolved once."""

import sys

import pytest

from headrace.core import units
from headrace.core.errors import ConfigError
from headrace.core.units import conversion


@pytest.mark.parametrize(
    ("unit", "to", "found"),
    [
        ("bar", "kPa", (100.0, 0.0)),
        ("degC", "degF", (1.8, 32.0)),
        ("degF", "degC", (0.555555555556, -17.7777777778)),
        ("degC", "kelvin", (1.0, 273.15)),
        ("kWh", "MJ", (3.6, 0.0)),
        ("m**3/h", "l/s", (0.277777777778, 0.0)),
        ("mm", "mm", (1.0, 0.0)),
    ],
)
def test_factors_are_decimals(unit, to, found):
    assert conversion(unit, to) == pytest.approx(found, rel=1e-11)
    assert conversion("degC", "degF") == (1.8, 32.0), "to the last bit"


@pytest.mark.parametrize(
    ("unit", "to", "why"),
    [
        ("bar", "degC", "'bar' can't be converted to 'degC'"),
        ("blub", "bar", "'blub' can't be converted"),
        ("dBm", "watt", "is no multiple of 'watt'"),
    ],
)
def test_units_that_do_not_fit(unit, to, why):
    with pytest.raises(ConfigError, match=why):
        conversion(unit, to)


def test_without_pint_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pint", None)
    units._units.cache_clear()
    conversion.cache_clear()
    with pytest.raises(ConfigError, match=r"install headrace\[units\]"):
        conversion("bar", "kPa")
    units._units.cache_clear()
