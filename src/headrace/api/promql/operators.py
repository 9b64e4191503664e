"""Operators and aggregations over vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.api.promql.labels import Labels
from headrace.api.promql.nodes import Aggregation, Operation, PromQlError
from headrace.api.promql.parser import COMPARISONS, SETS
from headrace.api.promql.vectors import F64, ScalarSteps, VectorSteps, empty, without_name

Value = ScalarSteps | VectorSteps
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.fmod, "^": np.power,
    "==": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal,
}  # fmt: skip


def compute(op: str, left: Any, right: Any) -> Any:
    """An operator over arrays, as IEEE 754 has it."""
    with np.errstate(all="ignore"):
        return _ARITHMETIC[op](left, right)


def operate(node: Operation, left: Value, right: Value) -> Value:
    """Both sides joined. Raises `PromQlError` where they can't be."""
    if node.op in SETS:
        if isinstance(left, ScalarSteps) or isinstance(right, ScalarSteps):
            raise PromQlError(f"{node.op} wants a vector on each side")
        return _set(node, left, right)
    if isinstance(left, ScalarSteps) and isinstance(right, ScalarSteps):
        if node.op in COMPARISONS and not node.is_bool:
            raise PromQlError("comparisons between scalars must use bool: 1 > bool 2")
        return ScalarSteps(compute(node.op, left.values, right.values).astype(np.float64))
    if isinstance(right, ScalarSteps):
        assert isinstance(left, VectorSteps)
        return _by_scalar(node, left, compute(node.op, left.values, right.values))
    if isinstance(left, ScalarSteps):
        return _by_scalar(node, right, compute(node.op, left.values, right.values))
    return _one_to_one(node, left, right)


def _by_scalar(node: Operation, vector: VectorSteps, found: Any) -> VectorSteps:
    if node.op not in COMPARISONS or node.is_bool:
        return vector.with_values(found.astype(np.float64))
    return kept(VectorSteps(vector.labels, vector.values, vector.there & found))


def kept(vector: VectorSteps) -> VectorSteps:
    """Without series that have no value at any step."""
    some = vector.there.any(axis=1)
    return vector if some.all() else vector.take(np.flatnonzero(some))


def _signature(node: Operation, labels: Labels) -> tuple[tuple[str, str], ...]:
    """What makes series of two sides belong together."""
    pairing = node.pairing
    if pairing.is_on:
        return tuple((name, labels.get(name, "")) for name in pairing.labels)
    dropped = {"__name__", *pairing.labels}
    return tuple(sorted((name, value) for name, value in labels.items() if name not in dropped))


def _one_to_one(node: Operation, left: VectorSteps, right: VectorSteps) -> VectorSteps:
    others: dict[tuple[tuple[str, str], ...], int] = {}
    for i, labels in enumerate(right.labels):
        key = _signature(node, labels)
        if key in others:
            raise _ambiguous("right", key)
        others[key] = i
    pairs: list[tuple[int, int]] = []
    seen = set()
    for i, labels in enumerate(left.labels):
        key = _signature(node, labels)
        if key in others:
            if key in seen:
                raise _ambiguous("left", key)
            seen.add(key)
            pairs.append((i, others[key]))
    if not pairs:
        return empty(left.values.shape[1])
    mine, theirs = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    there = left.there[mine] & right.there[theirs]
    found = compute(node.op, left.values[mine], right.values[theirs])
    filters = node.op in COMPARISONS and not node.is_bool
    labels_of = [_joined_labels(node, left.labels[i], keeps_name=filters) for i in mine.tolist()]
    if filters:
        return kept(VectorSteps(labels_of, left.values[mine], there & found))
    return kept(VectorSteps(labels_of, found.astype(np.float64), there))


def _joined_labels(node: Operation, labels: Labels, *, keeps_name: bool) -> Labels:
    mine = labels if keeps_name else without_name(labels)
    pairing = node.pairing
    if pairing.is_on:
        return {name: value for name, value in mine.items() if name in pairing.labels}
    return {name: value for name, value in mine.items() if name not in pairing.labels}


def _ambiguous(side: str, key: tuple[tuple[str, str], ...]) -> PromQlError:
    shown = ", ".join(f'{name}="{value}"' for name, value in key)
    return PromQlError(
        f"found duplicate series for the match group {{{shown}}} on the {side} side of the operation; many-to-many "
        "matching not allowed: matching labels must be unique on one side",
        "execution",
    )


def _set(node: Operation, left: VectorSteps, right: VectorSteps) -> VectorSteps:
    """``and``, ``or``, ``unless``, step by step."""
    there_of: dict[tuple[tuple[str, str], ...], Any] = {}
    base, other = (left, right) if node.op != "or" else (right, left)
    for i, labels in enumerate(other.labels):
        key = _signature(node, labels)
        there_of[key] = there_of.get(key, False) | other.there[i]
    nothing = np.zeros(left.values.shape[1], np.bool_)
    has_other = [there_of.get(_signature(node, labels), nothing) for labels in base.labels]
    mask = np.array(has_other, np.bool_).reshape(base.there.shape)
    if node.op != "and":
        mask = ~mask
    found = kept(VectorSteps(base.labels, base.values, base.there & mask))
    if node.op != "or":
        return found
    return _united(left, found)


def _united(left: VectorSteps, right: VectorSteps) -> VectorSteps:
    """Series of both; where both have one, the left's value at a step and else the right's."""
    number = {tuple(sorted(labels.items())): i for i, labels in enumerate(left.labels)}
    values, there = left.values.copy(), left.there.copy()
    new = []
    for i, labels in enumerate(right.labels):
        mine = number.get(tuple(sorted(labels.items())))
        if mine is None:
            new.append(i)
            continue
        values[mine] = np.where(there[mine], values[mine], right.values[i])
        there[mine] |= right.there[i]
    return VectorSteps(
        [*left.labels, *(right.labels[i] for i in new)],
        np.concatenate([values, right.values[new]]),
        np.concatenate([there, right.there[new]]),
    )


def aggregate(node: Aggregation, vector: VectorSteps, k: F64 | None) -> VectorSteps:
    """Series joined over the labels that are not kept. `k` is the parameter of ``topk`` and ``bottomk``."""
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for i, labels in enumerate(vector.labels):
        groups.setdefault(_group(node, labels), []).append(i)
    if node.op in ("topk", "bottomk"):
        assert k is not None
        return _extremes(node.op, vector, list(groups.values()), k)
    if not groups:
        return empty(vector.values.shape[1])
    rows = [_row(node.op, vector.values[index], vector.there[index]) for index in groups.values()]
    there = np.stack([vector.there[index].any(axis=0) for index in groups.values()])
    return VectorSteps([dict(key) for key in groups], np.stack(rows), there)


def _group(node: Aggregation, labels: Labels) -> tuple[tuple[str, str], ...]:
    if node.is_without:
        dropped = {"__name__", *node.labels}
        return tuple(sorted((name, value) for name, value in labels.items() if name not in dropped))
    return tuple(sorted((name, labels[name]) for name in node.labels if labels.get(name)))


def _row(op: str, values: F64, there: Any) -> F64:
    n = there.sum(axis=0)
    with np.errstate(all="ignore"):
        if op == "count":
            return np.asarray(n, np.float64)
        if op == "group":
            return np.ones(len(n))
        if op in ("min", "max"):
            found = np.where(there, values, np.nan)
            reduce = np.fmin if op == "min" else np.fmax
            return np.asarray(reduce.reduce(found, axis=0), np.float64)
        total = np.where(there, values, 0.0).sum(axis=0)
        if op == "sum":
            return np.asarray(total, np.float64)
        mean = total / n
        if op == "avg":
            return np.asarray(mean, np.float64)
        variance = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / n
        return np.asarray(variance if op == "stdvar" else np.sqrt(variance), np.float64)


def _extremes(op: str, vector: VectorSteps, groups: list[list[int]], k: F64) -> VectorSteps:
    """The largest or smallest k of each group, at each step."""
    there = np.zeros_like(vector.there)
    wanted = np.nan_to_num(k, nan=0.0, posinf=2**31, neginf=0.0)
    for index in groups:
        values = vector.values[index] if op == "bottomk" else -vector.values[index]
        # NaN is the last of all, and what is not there comes behind it.
        order = np.lexsort(
            (np.nan_to_num(values, nan=np.inf), np.isnan(values), ~vector.there[index]), axis=0
        )
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(len(index))[:, None] + np.zeros_like(order), axis=0)
        there[index] = vector.there[index] & (rank < np.floor(wanted))
    return kept(VectorSteps(vector.labels, vector.values, there))
