"""Text of a query into tokens."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from headrace.api.promql.nodes import PromQlError

MAX_CHARACTERS = 16_384
_UNITS_NS = {
    "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9, "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9,
    "y": 365 * 86_400 * 10**9,
}  # fmt: skip
_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<duration>(?:\d+(?:ms|[smhdwy]))+(?![\w.]))
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<name>[a-zA-Z_:][\w:]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    |(?P<op>=~|!~|==|!=|<=|>=|[-+*/%^<>=(){}\[\],:@])""",
    re.VERBOSE | re.ASCII,
)
_PART = re.compile(r"(\d+)(ms|[smhdwy])")


@dataclass(frozen=True, slots=True)
class Token:
    """One word of a query: its kind (name, number, duration, string, op, end), text, and where it stands."""

    kind: str
    text: str
    at: int


def tokens_of(text: str) -> list[Token]:
    """All tokens, an ``end`` behind them.

    Raises
    ------
    PromQlError : a character that can't be there, a string that does not end, or too long a query.
    """
    if len(text) > MAX_CHARACTERS:
        raise PromQlError(f"the query has {len(text):,} characters; {MAX_CHARACTERS:,} at most")
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise PromQlError(f"{at + 1}: parse error: unexpected character {text[at]!r}")
        kind = str(match.lastgroup)
        if kind != "space":
            found.append(Token(kind, match[0], at))
        at = match.end()
    return [*found, Token("end", "", len(text))]


def duration_ns(text: str) -> int:
    """Nanoseconds of ``1h30m``; 0 of what is none."""
    if not re.fullmatch(r"(?:\d+(?:ms|[smhdwy]))+", text):
        return 0
    return sum(int(n[:18]) * _UNITS_NS[unit] for n, unit in _PART.findall(text))


def string_of(token: Token) -> str:
    """What a string token stands for."""
    if token.text[0] == "`":
        return token.text[1:-1]
    try:
        return str(ast.literal_eval(token.text))
    except (ValueError, SyntaxError) as e:
        raise PromQlError(f"{token.at + 1}: parse error: bad escape in {token.text[:60]}") from e
