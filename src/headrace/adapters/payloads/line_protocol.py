r"""Line protocol, as Telegraf and the clients of InfluxDB write it: the grammar, in plain Python.

::

    cpu,host=pi,cpu=cpu0 usage_idle=97.9,n=4i,text="two words",on=true 1700000000000000000

A line has a measurement and tags (the *key*), fields, and a time. Numbers are floats, ``4i`` integers, ``4u`` unsigned
ones; ``t f true false`` in three spellings are truth values. ``,``, ``=`` and blanks in names are written with a
backslash before them, ``"`` and ``\`` in texts likewise; a text may hold line breaks. ``#`` begins a comment. What is
wrong ends with the line break after the place where it was noticed, so that one bad line costs no other.

This is the reference: what `headrace.adapters.payloads.line_scanner` reads, it reads alike, and what that leaves aside
is read here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from headrace.adapters.payloads.base import PayloadError
from headrace.core.clock import NO_TIME, NS
from headrace.core.events import RejectCode

FACTORS = {
    "": 1, "ns": 1, "n": 1, "us": 1_000, "u": 1_000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3_600 * NS,
}  # fmt: skip
"""Nanoseconds of a precision, as parameters of a write name it."""

FLOAT, INTEGER, UNSIGNED, TRUTH, TEXT = range(5)
"""Kinds of values."""

# Possessive quantifiers: nothing is tried twice, and nothing is kept for it.
_BLANK = re.compile(rb"(?:[ \t\r\n]++|#[^\n]*+)*+")
_NAME = r"(?:[^%s\n\\]++|\\[%s]|\\(?![%s\n]))++"
_MEASUREMENT = re.compile((_NAME % (", ", ", ", ", ")).encode())
_WORD = re.compile((_NAME % (",= ", ",= ", ",= ")).encode())
_TEXT = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_PLAIN = re.compile(rb"[^, \r\n]*")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_END = re.compile(rb" *(?:\r?\n|\r?\Z)")
_TRUTHS = {
    **dict.fromkeys((b"t", b"T", b"true", b"True", b"TRUE"), True),
    **dict.fromkeys((b"f", b"F", b"false", b"False", b"FALSE"), False),
}
_ESCAPED = re.compile(rb"\\([,= ])")
_ESCAPED_MEASUREMENT = re.compile(rb"\\([, ])")
_ESCAPED_TEXT = re.compile(rb'\\(["\\])')
_DIGITS_MAX = 400
FIELDS_MAX = 65_535
I64_MAX, U64_MAX = 2**63 - 1, 2**64 - 1


class LineField(NamedTuple):
    """One field: its key as written, what kind of value it is, and the value (a text as bytes)."""

    key: bytes
    kind: int
    value: float | bytes


class Line(NamedTuple):
    """One line: its key as written, its fields, its time (`NO_TIME` without one), and where the next begins."""

    key: bytes
    fields: tuple[LineField, ...]
    ts_ns: int
    end: int


class LineError(PayloadError):
    """A line that can't be read; the next begins at `end`."""

    def __init__(self, code: RejectCode, detail: str, end: int, n_samples: int = 1) -> None:
        super().__init__(code, detail, n_samples)
        self.end = end


def skip_blank(data: bytes, at: int) -> int:
    """Where the first line at or after `at` begins that is neither empty nor a comment."""
    return _BLANK.match(data, at).end()  # type: ignore[union-attr]


def read_line(data: bytes, at: int, factor: int) -> Line:
    """Read the line that begins at `at`.

    Parameters
    ----------
    factor : nanoseconds of one unit of its time.

    Raises
    ------
    LineError : malformed, too-large, or bad-time.
    """
    key_end = _key_end(data, at)
    fields: list[LineField] = []
    here = key_end
    while data[here : here + 1] == b" ":
        here += 1
    more = True
    while more:
        if len(fields) == FIELDS_MAX:
            detail = f"more than {FIELDS_MAX:,} fields in a line"
            raise LineError(RejectCode.TOO_LARGE, detail, _next_line(data, here), FIELDS_MAX)
        field, here = _field(data, here)
        fields.append(field)
        more = data[here : here + 1] == b","
        here += more
    if len({field.key for field in fields}) != len(fields):
        raise LineError(RejectCode.MALFORMED, "a field is there twice", _next_line(data, here), len(fields))
    ts_ns, end = _time(data, here, factor, len(fields))
    return Line(data[at:key_end], tuple(fields), ts_ns, end)


def with_fields(data: bytes, line: Line, at: int, keys: Collection[bytes]) -> bytes:
    """The bytes of `line`, which begins at `at`, with no other fields than `keys`; they can be read again."""
    here = at + len(line.key)
    while data[here : here + 1] == b" ":
        here += 1
    head, some = data[at:here], []
    for field in line.fields:
        start, (_, here) = here, _field(data, here)
        if field.key in keys:
            some.append(data[start:here])
        here += data[here : here + 1] == b","
    return head + b",".join(some) + data[here : line.end]


def _key_end(data: bytes, at: int) -> int:
    match = _MEASUREMENT.match(data, at)
    if match is None:
        raise _malformed(data, at, "a measurement")
    here = match.end()
    while data[here : here + 1] == b",":
        name = _WORD.match(data, here + 1)
        if name is None or data[name.end() : name.end() + 1] != b"=":
            raise _malformed(data, here + 1, "a tag, name=value")
        value = _WORD.match(data, name.end() + 1)
        if value is None:
            raise _malformed(data, name.end() + 1, "the value of a tag")
        here = value.end()
    if data[here : here + 1] != b" ":
        raise _malformed(data, here, "a blank and fields after measurement and tags")
    return here


def _field(data: bytes, at: int) -> tuple[LineField, int]:
    name = _WORD.match(data, at)
    if name is None or data[name.end() : name.end() + 1] != b"=":
        raise _malformed(data, at, "a field, name=value")
    at = name.end() + 1
    if data[at : at + 1] == b'"':
        text = _TEXT.match(data, at)
        if text is None:
            raise _malformed(data, at, 'the closing " of a text')
        return LineField(name[0], TEXT, _ESCAPED_TEXT.sub(rb"\1", text[1])), text.end()
    word = _PLAIN.match(data, at)
    assert word is not None
    kind, value = _value(data, at, word[0])
    return LineField(name[0], kind, value), word.end()


def _value(data: bytes, at: int, word: bytes) -> tuple[int, float]:
    truth = _TRUTHS.get(word)
    if truth is not None:
        return TRUTH, truth
    if len(word) <= _DIGITS_MAX:
        if _NUMBER.fullmatch(word):
            return FLOAT, float(word)
        if word.endswith(b"i") and _INTEGER.fullmatch(word[:-1]):
            integer = int(word[:-1])
            if -I64_MAX - 1 <= integer <= I64_MAX:
                return INTEGER, integer
        if word.endswith(b"u") and word[:-1].isdigit() and int(word[:-1]) <= U64_MAX:
            return UNSIGNED, int(word[:-1])
    raise _malformed(data, at, 'a value: 1.5, 4i, 4u, true or "text"')


def _time(data: bytes, at: int, factor: int, n_fields: int) -> tuple[int, int]:
    end = _END.match(data, at)
    if end is not None:
        return NO_TIME, end.end()
    start = at
    while data[at : at + 1] == b" ":
        at += 1
    digits = _INTEGER.match(data, at)
    end = None if digits is None or at == start else _END.match(data, digits.end())
    if digits is None or end is None:
        raise _malformed(data, at, "a time in whole numbers, or the end of the line", n_fields)
    ts_ns = int(digits[0]) * factor if len(digits[0]) <= _DIGITS_MAX else -NO_TIME
    if not NO_TIME < ts_ns < -NO_TIME:
        detail = f"time {digits[0][:40].decode()} is outside the years 1678 to 2262; is the precision right?"
        raise LineError(RejectCode.BAD_TIME, detail, end.end(), n_fields)
    return ts_ns, end.end()


def _malformed(data: bytes, at: int, expected: str, n_samples: int = 1) -> LineError:
    end = _next_line(data, at)
    found = data[at : min(end, at + 40)].decode("utf-8", "replace").rstrip("\r\n")
    return LineError(RejectCode.MALFORMED, f"expected {expected}, got {found!r}", end, n_samples)


def _next_line(data: bytes, at: int) -> int:
    line_break = data.find(b"\n", at)
    return len(data) if line_break < 0 else line_break + 1


def split_key(key: bytes) -> tuple[str, dict[str, str]]:
    """Measurement and tags of a line's key.

    Raises
    ------
    PayloadError : malformed, a tag is there twice or the key is not UTF-8.
    """
    try:
        match = _MEASUREMENT.match(key)
        assert match is not None
        measurement = _ESCAPED_MEASUREMENT.sub(rb"\1", match[0]).decode()
        tags: dict[str, str] = {}
        at = match.end()
        while at < len(key):
            name = _WORD.match(key, at + 1)
            assert name is not None
            value = _WORD.match(key, name.end() + 1)
            assert value is not None
            tag = unescape(name[0])
            if tag in tags:
                raise PayloadError(RejectCode.MALFORMED, f"tag {tag!r:.60} is there twice")
            tags[tag] = unescape(value[0])
            at = value.end()
    except UnicodeDecodeError as e:
        raise PayloadError(RejectCode.MALFORMED, f"measurement and tags are not UTF-8: {e}") from None
    return measurement, tags


def unescape(name: bytes) -> str:
    """The name of a tag or field, or the value of a tag, from how it is written. Raises UnicodeDecodeError."""
    return _ESCAPED.sub(rb"\1", name).decode()
