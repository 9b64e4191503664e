"""What a query is parsed into, and how a query goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PromQlError(Exception):
    """A query that can't be answered.

    Parameters
    ----------
    kind : ``bad_data`` where the text is wrong, ``execution`` where it is too much, as Prometheus says it.
    """

    def __init__(self, text: str, kind: str = "bad_data") -> None:
        super().__init__(text)
        self.kind = kind


class MatchOp(StrEnum):
    """How a label is compared."""

    EQUAL = "="
    DIFFERENT = "!="
    MATCHES = "=~"
    MATCHES_NOT = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; the metric's name is the label ``__name__``."""

    label: str
    op: MatchOp
    value: str


@dataclass(frozen=True, slots=True)
class Number:
    """A scalar that does not change."""

    value: float


@dataclass(frozen=True, slots=True)
class Text:
    """A string, which is an answer of its own only."""

    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """Series by their labels. `range_ns` is 0 for an instant vector. `offset_ns` looks back."""

    matchers: tuple[Matcher, ...]
    range_ns: int = 0
    offset_ns: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A function of its arguments."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Series joined over labels: `labels` are those kept, or with `is_without` those dropped.

    `parameter` is the number of ``topk`` and its like.
    """

    op: str
    of: Node
    labels: tuple[str, ...] = ()
    is_without: bool = False
    parameter: Node | None = None


@dataclass(frozen=True, slots=True)
class Negated:
    """Minus something."""

    of: Node


@dataclass(frozen=True, slots=True)
class Pairing:
    """How the series of two sides find each other: by all labels, only `on` some, or `ignoring` some."""

    labels: tuple[str, ...] = ()
    is_on: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """Two sides and an operator; `is_bool` makes a comparison answer 0 and 1 instead of leaving out."""

    op: str
    left: Node
    right: Node
    is_bool: bool = False
    pairing: Pairing = Pairing()


Node = Number | Text | Selector | Call | Aggregation | Negated | Operation
