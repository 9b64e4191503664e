"""Tokens into a tree, as Prometheus' own grammar binds them.

What is not in this part of the language is told by name: nobody has to guess why a query is refused.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.api.promql.labels import matches_all_of
from headrace.api.promql.lexer import Token, duration_ns, string_of, tokens_of
from headrace.api.promql.nodes import (
    Aggregation,
    Call,
    Matcher,
    MatchOp,
    Negated,
    Node,
    Number,
    Operation,
    Pairing,
    PromQlError,
    Selector,
    Text,
)

OVER_TIME = (
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
)
RATES = ("rate", "increase", "delta", "irate", "idelta")
MATHS = ("abs", "ceil", "floor", "round", "sqrt", "exp", "ln", "log2", "log10", "sgn")
OTHERS = ("scalar", "vector", "time", "timestamp", "clamp", "clamp_min", "clamp_max", "sort", "sort_desc")
FUNCTIONS = (*OVER_TIME, *RATES, *MATHS, *OTHERS)
AGGREGATIONS = ("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk")
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
SETS = ("and", "or", "unless")
_BINDING = {
    "or": 1, "and": 2, "unless": 2, **dict.fromkeys(COMPARISONS, 3), "+": 4, "-": 4, "*": 5, "/": 5, "%": 5, "^": 7,
}  # fmt: skip
_NEGATION = 6
_DEPTH_MAX, _OPERATIONS_MAX = 60, 100
_NUMBERS = {"inf": float("inf"), "nan": float("nan")}
_N_ARGUMENTS = {"time": (0, 0), "clamp": (3, 3), "clamp_min": (2, 2), "clamp_max": (2, 2), "round": (1, 2)}


def parse(text: str) -> Node:
    """The tree of a query.

    Raises
    ------
    PromQlError : the query is not PromQL, or uses what there is not here.
    """
    parser = _Parser(tokens_of(text))
    node = parser.expression()
    parser.need("end", "")
    return node


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of ``match[]``. Raises `PromQlError`."""
    node = parse(text)
    if not isinstance(node, Selector) or node.range_ns:
        raise PromQlError(f'{text[:100]!r} is no selector; write temperature{{line="line1"}}')
    return node.matchers


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._at, self._depth, self._n_operations = tokens, 0, 0, 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _accept(self, *texts: str) -> Token | None:
        """Take the next token where it is one of these operators or words."""
        token = self._next
        if token.kind in ("op", "name") and token.text.lower() in texts:
            return self._take()
        return None

    def need(self, kind: str, text: str, where: str = "") -> Token:
        """Take the next token, which must be this one."""
        token = self._next
        if token.kind != kind or (text and token.text != text):
            raise self._error(f"expected {text or kind}{where}")
        return self._take() if kind != "end" else token

    def _error(self, what: str) -> PromQlError:
        token = self._next
        got = "end of input" if token.kind == "end" else repr(token.text[:60])
        return PromQlError(f"1:{token.at + 1}: parse error: unexpected {got}: {what}")

    # --- operators -----------------------------------------------------------------------------------

    def expression(self, least: int = 1) -> Node:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise PromQlError(f"the query is nested more than {_DEPTH_MAX} times")
        left = self._unary()
        while True:
            token = self._next
            op = token.text.lower()
            if token.kind not in ("op", "name") or op not in _BINDING or _BINDING[op] < least:
                break
            self._take()
            left = self._operation(op, left)
        self._depth -= 1
        return left

    def _operation(self, op: str, left: Node) -> Node:
        self._n_operations += 1
        if self._n_operations > _OPERATIONS_MAX:
            raise PromQlError(f"the query has more than {_OPERATIONS_MAX} operators")
        is_bool = self._accept("bool") is not None
        if is_bool and op not in COMPARISONS:
            raise self._error("bool goes with comparisons only")
        pairing = self._pairing()
        # Only powers bind to the right.
        right = self.expression(_BINDING[op] if op == "^" else _BINDING[op] + 1)
        return Operation(op, left, right, is_bool, pairing)

    def _pairing(self) -> Pairing:
        pairing, word = Pairing(), self._accept("on", "ignoring")
        if word is not None:
            pairing = Pairing(self._labels(), word.text.lower() == "on")
        if self._accept("group_left", "group_right"):
            raise PromQlError(
                "group_left and group_right are not here: join sides that have one series for each"
            )
        return pairing

    def _unary(self) -> Node:
        while self._accept("+"):
            pass
        if self._accept("-"):
            of = self.expression(_NEGATION)
            return Number(-of.value) if isinstance(of, Number) else Negated(of)
        return self._postfix(self._primary())

    # --- what stands alone ---------------------------------------------------------------------------

    def _primary(self) -> Node:
        token = self._next
        if token.kind == "number":
            self._take()
            text = token.text
            return Number(float(int(text, 16)) if text[:2].lower() == "0x" else float(text))
        if token.kind == "string":
            return Text(string_of(self._take()))
        if self._accept("("):
            inner = self.expression()
            self.need("op", ")", " behind a group")
            return inner
        if token.kind == "op" and token.text == "{":
            return self._selector("")
        if token.kind == "name":
            return self._named()
        raise self._error("expected a selector, a number or a function")

    def _named(self) -> Node:
        token = self._take()
        name, lower = token.text, token.text.lower()
        follows = self._next.text if self._next.kind in ("op", "name") else ""
        if lower in AGGREGATIONS and (follows == "(" or follows.lower() in ("by", "without")):
            return self._aggregation(lower)
        if follows == "(":
            return self._call(name)
        if lower in _NUMBERS and follows != "{":
            return Number(_NUMBERS[lower])
        return self._selector(name)

    def _call(self, name: str) -> Node:
        if name not in FUNCTIONS:
            known = ", ".join(FUNCTIONS)
            raise PromQlError(f"there is no function {name[:60]!r} here; there are {known}")
        arguments = self._arguments()
        least, most = _N_ARGUMENTS.get(name, (1, 1))
        if not least <= len(arguments) <= most:
            raise PromQlError(
                f"{name} takes {least} argument{'s' if least != 1 else ''}, not {len(arguments)}"
            )
        wants_range = name in (*OVER_TIME, *RATES)
        for argument in arguments:
            has_range = isinstance(argument, Selector) and argument.range_ns > 0
            if wants_range != has_range:
                want = "a range vector, as temperature[5m]" if wants_range else "no range vector"
                raise PromQlError(f"{name} wants {want}")
            if isinstance(argument, Text):
                raise PromQlError(f"{name} takes no string")
        return Call(name, arguments)

    def _arguments(self) -> tuple[Node, ...]:
        self.need("op", "(")
        found: list[Node] = []
        while not self._accept(")"):
            if found:
                self.need("op", ",", " between arguments")
            found.append(self.expression())
        return tuple(found)

    def _aggregation(self, op: str) -> Node:
        labels, is_without = self._grouping()
        arguments = self._arguments()
        if not labels and not is_without:
            labels, is_without = self._grouping()
        n = 2 if op in ("topk", "bottomk") else 1
        if len(arguments) != n:
            raise PromQlError(f"{op} takes {n} argument{'s' if n > 1 else ''}, not {len(arguments)}")
        of = arguments[-1]
        if isinstance(of, Number | Text) or (isinstance(of, Selector) and of.range_ns):
            raise PromQlError(f"{op} wants an instant vector")
        return Aggregation(op, of, labels, is_without, arguments[0] if n == 2 else None)

    def _grouping(self) -> tuple[tuple[str, ...], bool]:
        word = self._accept("by", "without")
        return ((), False) if word is None else (self._labels(), word.text.lower() == "without")

    def _labels(self) -> tuple[str, ...]:
        self.need("op", "(")
        found: list[str] = []
        while not self._accept(")"):
            if found:
                self.need("op", ",", " between labels")
                if self._accept(")"):
                    break
            found.append(self.need("name", "").text)
        return tuple(found)

    # --- selectors -----------------------------------------------------------------------------------

    def _selector(self, name: str) -> Node:
        matchers = [Matcher("__name__", MatchOp.EQUAL, name)] if name else []
        if self._accept("{"):
            is_first = True
            while not self._accept("}"):
                if not is_first:
                    self.need("op", ",", " between labels")
                    if self._accept("}"):
                        break
                matchers.append(self._matcher())
                is_first = False
        # As Prometheus has it: a selector that names nothing would read everything.
        if all(_takes_empty(one) for one in matchers):
            raise PromQlError("a selector needs a name, or one matcher that does not take an empty value")
        return Selector(tuple(matchers))

    def _matcher(self) -> Matcher:
        if self._next.kind == "string":  # {"a name"}: a metric whose name is no word
            return Matcher("__name__", MatchOp.EQUAL, string_of(self._take()))
        label = self.need("name", "", " of a label").text
        token = self._next
        if token.kind != "op" or token.text not in tuple(MatchOp):
            raise self._error("expected =, !=, =~ or !~")
        op = MatchOp(self._take().text)
        return Matcher(label, op, string_of(self.need("string", "", " to compare the label with")))

    def _postfix(self, node: Node) -> Node:
        while True:
            if self._accept("["):
                node = self._range(node)
            elif self._accept("offset"):
                sign = -1 if self._accept("-") else 1
                if not isinstance(node, Selector) or node.offset_ns:
                    raise self._error("offset goes behind a selector")
                node = replace(node, offset_ns=sign * self._duration())
            elif self._next.text == "@" and self._next.kind == "op":
                raise PromQlError("the @ modifier is not here; use the time of the query")
            else:
                return node

    def _range(self, node: Node) -> Node:
        range_ns = self._duration()
        if self._next.text.startswith(":"):
            raise PromQlError("subqueries are not here; write the range behind a selector: temperature[5m]")
        self.need("op", "]", " behind a range")
        if not isinstance(node, Selector) or node.range_ns or node.offset_ns:
            raise PromQlError("a range goes directly behind a selector: temperature[5m]")
        return replace(node, range_ns=range_ns)

    def _duration(self) -> int:
        found = duration_ns(self.need("duration", "").text)
        if not 0 < found < 2**62:
            raise PromQlError("a duration must be longer than nothing, and shorter than a century")
        return found


def _takes_empty(matcher: Matcher) -> bool:
    if matcher.op is MatchOp.EQUAL:
        return matcher.value == ""
    if matcher.op is MatchOp.DIFFERENT:
        return matcher.value != ""
    hit = bool(matches_all_of(matcher.value, [""])[0])
    return hit if matcher.op is MatchOp.MATCHES else not hit
