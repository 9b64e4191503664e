"""Units of measurement: how many of one are one of another. Only looked at when a plant is made, never with data.

The units are pint's: ``degC``, ``bar``, ``kWh``, ``m**3/h``, ``m/s``. It comes with the extra ``units``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from headrace.core.errors import ConfigError

_DIGITS = 12


@lru_cache(maxsize=1)
def _units() -> Any:
    try:
        import pint
    except ImportError as e:
        raise ConfigError("convert_to needs pint; install headrace[units]") from e
    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)


@lru_cache(maxsize=1_024)
def conversion(unit: str, to: str) -> tuple[float, float]:
    """(factor, add): ``value in to = value in unit * factor + add``, rounded to twelve digits.

    Raises
    ------
    ConfigError : an unknown unit, units of different things, or one that is no multiple (decibels).

    Examples
    --------
    >>> conversion("degC", "degF")
    (1.8, 32.0)
    """
    units = _units()
    try:
        zero, one, two = (float(units.Quantity(x, unit).to(to).magnitude) for x in (0.0, 1.0, 1_000.0))
    except Exception as e:  # pint raises its own, and those of the parser and of arithmetic
        raise ConfigError(f"{unit!r} can't be converted to {to!r}: {e}") from e
    factor, add = _rounded(one - zero), _rounded(zero)
    if not math.isclose(zero + 1_000.0 * (one - zero), two, rel_tol=1e-6) or factor == 0.0:
        raise ConfigError(f"{unit!r} is no multiple of {to!r}, so values can't be converted")
    return factor, add


def _rounded(x: float) -> float:
    return float(f"{x:.{_DIGITS}g}")
