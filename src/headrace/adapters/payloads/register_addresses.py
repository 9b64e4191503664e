"""Tag addresses of registers and bits: what is written in a profile, read and printed back.

``area:offset[.bit][:TYPE[n]][;order=ABCD][;scale=0.1][;add=-40]``: areas `holding`, `input`, `coil`, `discrete`;
types U16 I16 U32 I32 U64 I64 F32 F64, BCD16 and BCD32 (four bits a decimal digit), STR[n] (a text of n bytes, two in
each register). ``TYPE[n]`` is n values one after the other, ``BIT[n]`` n bits; `elements` parts them. Orders are
always four letters. ABCD is big-endian as Modbus has it, CDAB has the words swapped, BADC the bytes of each word,
DCBA both; for 64-bit types they mean the same: big, word-swapped, byte-swapped, little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from headrace.core.errors import ConfigError

MAX_REGISTERS = 125
MAX_BITS = 2_000
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
TYPES = ("U16", "I16", "U32", "I32", "U64", "I64", "F32", "F64")
BCD = ("BCD16", "BCD32")
BIT = "BIT"
STR = "STR"
_ADDRESS = re.compile(r"([a-z]+):(\d+)(?:\.(\d+))?(?::([A-Za-z]+\d*)(?:\[(\d+)\])?)?((?:;[a-z]+=[^;]+)*)")
_GRAMMAR = "area:offset[.bit][:TYPE[n]][;order=ABCD|CDAB|BADC|DCBA][;scale=][;add=], for example holding:100:F32;order=CDAB"


class Area(StrEnum):
    """The four tables of a Modbus device."""

    COIL = "coil"
    DISCRETE = "discrete"
    HOLDING = "holding"
    INPUT = "input"

    @property
    def function(self) -> int:
        """The function code that reads it."""
        return _FUNCTIONS[self]

    @property
    def has_bits(self) -> bool:
        """Whether its items are single bits."""
        return self in (Area.COIL, Area.DISCRETE)


_FUNCTIONS = {Area.COIL: 1, Area.DISCRETE: 2, Area.HOLDING: 3, Area.INPUT: 4}
_MODICON = {0: Area.COIL, 1: Area.DISCRETE, 3: Area.INPUT, 4: Area.HOLDING}


class Numbering(StrEnum):
    """How a plant's documents count registers; declared once for an adapter, printed back as `ZERO`."""

    ZERO = "zero"
    """``holding:0`` is the first register, as on the wire."""
    ONE = "one"
    """``holding:1`` is the first register."""
    MODICON = "modicon"
    """``40001`` (or ``400001``) is the first holding register, ``30001`` the first input register."""


@dataclass(frozen=True, slots=True)
class RegisterAddress:
    """Where one value lies in a device, or several of one type that follow each other.

    Parameters
    ----------
    offset : first register or bit, from 0 as on the wire.
    type : U16 … F64, BCD16, BCD32, STR (a text), or BIT (a coil, or one bit of a register).
    bit : which bit of a register, 0 is the least significant; None for whole values.
    order : byte order of the value.
    scale, add : engineering value = raw * scale + add.
    length : how many values; bytes of a text.
    """

    area: Area
    offset: int
    type: str
    bit: int | None = None
    order: str = "ABCD"
    scale: float = 1.0
    add: float = 0.0
    length: int = 1

    @property
    def n_values(self) -> int:
        """How many values it stands for."""
        return 1 if self.type == STR else self.length

    @property
    def count(self) -> int:
        """Registers (or bits of a bit area) that it takes."""
        if self.type == BIT:
            return self.length if self.bit is None else (self.bit + self.length + 15) // 16
        if self.type == STR:
            return (self.length + 1) // 2
        return self.length * int(self.type.lstrip("BCDFIU")) // 16

    @property
    def dtype(self) -> str:
        """Value type of the column: bits are u8, texts codes of words."""
        if self.type in BCD:
            return f"u{self.type[3:]}"
        return {BIT: "u8", STR: "u32"}.get(self.type, self.type.lower())

    @property
    def part(self) -> str:
        """The group's part that has the value: its type, and one for texts."""
        return "text" if self.type == STR else self.dtype

    def __str__(self) -> str:
        """The normalised form: type and, for more than one register, order always written out."""
        out = f"{self.area}:{self.offset}"
        if self.bit is not None:
            out += f".{self.bit}"
        if self.type == STR or self.length > 1:
            out += f":{self.type}[{self.length}]"
        elif self.type != BIT:
            out += f":{self.type}"
        if self.type != BIT and (self.count > 1 or self.order != "ABCD"):
            out += f";order={self.order}"
        if self.scale != 1.0:
            out += f";scale={self.scale}"
        return out + (f";add={self.add}" if self.add != 0.0 else "")


def elements(address: RegisterAddress) -> tuple[RegisterAddress, ...]:
    """The single values that an address stands for."""
    if address.n_values == 1:
        return (address,)
    one = replace(address, length=1)
    if address.bit is not None:
        bits = range(address.bit, address.bit + address.length)
        return tuple(replace(one, offset=address.offset + b // 16, bit=b % 16) for b in bits)
    return tuple(replace(one, offset=address.offset + i * one.count) for i in range(address.length))


def parse_address(text: str, numbering: Numbering = Numbering.ZERO) -> RegisterAddress:
    """Read a tag address.

    Raises
    ------
    ConfigError : not an address; the text says which part is wrong and what is allowed.
    """
    plain = re.fullmatch(r"(\d{5,6})(.*)", text) if numbering is Numbering.MODICON else None
    if plain is not None:
        text = _from_modicon(text, plain[1]) + plain[2]
    match = _ADDRESS.fullmatch(text)
    if match is None or match[1] not in list(Area):
        raise ConfigError(f"tag address {text!r} is not {_GRAMMAR}; areas: {', '.join(Area)}")
    area, offset = Area(match[1]), int(match[2]) - (plain is None and numbering is Numbering.ONE)
    bit = None if match[3] is None else int(match[3])
    one = RegisterAddress(area, offset, _type_of(text, area, bit, match[4]), bit)
    one = _with_options(text, _with_length(text, one, match[5]), match[6])
    if not 0 <= offset <= 65_536 - one.count:
        raise ConfigError(f"tag address {text!r} starts at offset {offset}, a table has 0 to 65535")
    return one


def _from_modicon(text: str, digits: str) -> str:
    area, number = _MODICON.get(int(digits[0])), int(digits[1:])
    if area is None or number == 0:
        raise ConfigError(f"tag address {text!r}: numbers are 00001, 10001, 30001 or 40001 and up")
    return f"{area}:{number - 1}"


def _type_of(text: str, area: Area, bit: int | None, given: str | None) -> str:
    name = None if given is None else given.upper()
    if bit is not None:
        if area.has_bits or name not in (None, BIT) or bit > 15:
            raise ConfigError(
                f"tag address {text!r}: a bit is .0 to .15 of a register and has no type but BIT[n]"
            )
        return BIT
    if area.has_bits:
        if name not in (None, BIT):
            raise ConfigError(
                f"tag address {text!r}: {area} items are single bits and have no type but BIT[n]"
            )
        return BIT
    known = (*TYPES, *BCD, STR)
    if name is not None and name not in known:
        raise ConfigError(f"tag address {text!r} has type {given!r}, not one of {', '.join(known)}")
    return name or "U16"


def _with_length(text: str, one: RegisterAddress, length: str | None) -> RegisterAddress:
    if one.type == STR:
        if length is None or not 1 <= int(length) <= 2 * MAX_REGISTERS:
            raise ConfigError(
                f"tag address {text!r}: a text says how many bytes it has, STR[1] to STR[{2 * MAX_REGISTERS}]"
            )
    elif length is None:
        return one
    elif not 1 <= int(length) <= 65_535:
        raise ConfigError(f"tag address {text!r}: {length} is not 1 to 65535, how many values there are")
    return replace(one, length=int(length))


def _with_options(text: str, one: RegisterAddress, options: str) -> RegisterAddress:
    found = dict(option.split("=", 1) for option in options.split(";")[1:])
    order = found.pop("order", "ABCD").upper()
    orders = {BIT: ("ABCD",), STR: ("ABCD", "BADC")}.get(one.type, ORDERS)
    if order not in orders:
        raise ConfigError(
            f"tag address {text!r} has order {order}, not one of {', '.join(ORDERS)} "
            f"(bits: none, texts: ABCD or BADC)"
        )
    if replace(one, length=1).count == 1:  # one register has no words to swap
        order = {"CDAB": "ABCD", "DCBA": "BADC"}.get(order, order)
    numbers = {"scale": 1.0, "add": 0.0}
    for key, value in found.items():
        number = _finite(value)
        if key not in numbers or number is None or (key == "scale" and number == 0):
            raise ConfigError(f"tag address {text!r}: {key}={value} is not order=, scale= (not 0) or add=")
        numbers[key] = number
    if one.type == STR and numbers != {"scale": 1.0, "add": 0.0}:
        raise ConfigError(f"tag address {text!r}: a text has no scale and nothing to add")
    return replace(one, order=order, scale=numbers["scale"], add=numbers["add"])


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
