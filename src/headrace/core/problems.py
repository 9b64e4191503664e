"""What is wrong with a section, in sentences: where, what was found, what is allowed.

Pydantic finds the problems; this module words them. All problems of a file are told at once. What was written
is repeated except where it may be a secret.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from headrace.core.errors import ConfigError
from headrace.core.registry import nearest

M = TypeVar("M", bound=BaseModel)
Loc = tuple[int | str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SECRET = re.compile(r"password|secret|token|key", re.IGNORECASE)
_IS_NOT = " is not "
_NOUNS = {
    "string": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "dict": "a table",
    "model": "a table", "tuple": "a list", "list": "a list", "int_from": "a whole number", "mapping": "a table",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the dotted key or file and line, and what is wrong with it."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class InvalidConfig(ConfigError):
    """A plant file, or a section of it, with all its problems (at least one): a line each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first, *others = self.problems
        super().__init__("\n".join([first.message, *map(str, others)]), first.where)


def validate_section(model: type[M], data: Any, where: str) -> M:
    """Make `model` from a table of the plant file.

    Parameters
    ----------
    where : dotted key of the table: ``adapters.ovens``.

    Raises
    ------
    InvalidConfig : every problem of the table, each with its key and what is allowed.
    """
    try:
        return model.model_validate(data)
    except ValidationError as e:
        raise InvalidConfig(find_problems(model, data, e, where)) from None


def find_problems(
    model: type[BaseModel], data: Any, error: ValidationError, where: str = ""
) -> list[Problem]:
    """The problems that pydantic found in a table, worded."""
    found: dict[Loc, list[str]] = {}
    alternatives: set[Loc] = set()
    for detail in error.errors(include_url=False):
        loc = _keys_of(detail["loc"], data, detail["type"])
        if len(loc) < len(detail["loc"]):
            alternatives.add(loc)
        found.setdefault(loc, []).append(_message(model, detail, loc))
    # Where a value may be one thing or another, what is wrong inside the one that was meant says it all.
    inside = {loc[:depth] for loc in found for depth in range(len(loc))}
    return [
        Problem(f"{where}.{dotted(loc)}" if where and loc else where or dotted(loc), message)
        for loc, messages in found.items()
        if loc not in alternatives or loc not in inside
        for message in _joined(messages)
    ]


def _keys_of(loc: Loc, data: Any, kind: str) -> Loc:
    """`loc` without the names of alternatives that pydantic puts in: the keys that stand in the file."""
    out: list[int | str] = []
    at = data
    for i, part in enumerate(loc):
        there = isinstance(at, Mapping | list) and (
            part in at if isinstance(at, Mapping) else isinstance(part, int) and part < len(at)
        )
        if there:
            at = at[part]
        if there or (kind == "missing" and i == len(loc) - 1):
            out.append(part)
    return tuple(out)


def _joined(messages: list[str]) -> list[str]:
    """``5 is not text`` and ``5 is not a table``: ``5 is not text or a table``."""
    first, *rest = dict.fromkeys(messages)
    head, is_not, _ = first.partition(_IS_NOT)
    if is_not and all(message.startswith(head + is_not) for message in rest):
        return [" or ".join([first, *(message.removeprefix(head + is_not) for message in rest)])]
    return [first, *rest]


def dotted(loc: Loc) -> str:
    """``adapters.ovens.devices."a/b"`` and ``steps[2].op``: a key as it stands in the file."""
    out = ""
    for part in loc:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += ("." if out else "") + (part if _BARE.fullmatch(part) else f'"{part}"')
    return out


def _message(model: type[BaseModel], detail: Any, loc: Loc) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(model, loc)
    if kind == "missing":
        return f"is missing{_description(model, loc)}"
    if kind == "value_error":
        return str(context["error"])
    found = "the value" if any(_SECRET.search(str(p)) for p in loc) else _shown(detail["input"])
    if kind == "literal_error":
        return f"{found} is not one of {context['expected']}"
    noun = _NOUNS.get(kind.partition("_")[0])
    if noun and kind.endswith(("_type", "_parsing", "_from_float")):
        return f"{found}{_IS_NOT}{noun}"
    if kind == "too_short":
        return f"{found} has too few entries; it needs {context['min_length']} at least"
    text = detail["msg"].removeprefix("Input ")
    return f"{found} {text}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_key(model: type[BaseModel], loc: Loc) -> str:
    key, known = str(loc[-1]), known_keys(model, loc[:-1])
    for depth in range(len(loc) - 2, -1, -1):
        if key in known_keys(model, loc[:depth]):
            above = dotted(loc[:depth]) or "the top of the file"
            return (
                f"unknown key; {key!r} belongs to {above}: in TOML a key below a [table] line is part of that table, "
                f"so move it above the line [{dotted(loc[:-1])}]"
            )
    return f"unknown key{nearest(key, known)}"


def _description(model: type[BaseModel], loc: Loc) -> str:
    for parent in _models_at(model, loc[:-1]):
        field = parent.model_fields.get(str(loc[-1]))
        if field is not None and field.description:
            return f"; it says {field.description}"
    return ""


def known_keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """Keys that the table at `loc` takes, in the order of the documentation."""
    return [f.alias or name for at in _models_at(model, loc) for name, f in at.model_fields.items()]


def _models_at(model: type[BaseModel], loc: Loc) -> list[type[BaseModel]]:
    """The models that the table at `loc` may be; none where the table is free."""
    found: list[Any] = [model]
    for part in loc:
        found = [inner for at in found for inner in _inside(at, part)]
    return [at for at in found if isinstance(at, type) and issubclass(at, BaseModel)]


def _inside(annotation: Any, part: int | str) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        if field is not None:
            return _alternatives(field.annotation)
        extra = get_type_hints(annotation).get("__pydantic_extra__")  # tables under free names
        return _alternatives(get_args(extra)[1]) if get_origin(extra) is dict else []
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, Mapping):
        return _alternatives(arguments[1])
    return _alternatives(arguments[0]) if arguments else []


def _alternatives(annotation: Any) -> list[Any]:
    """What an annotation allows, without ``Annotated`` and with the members of a union one by one."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in _alternatives(member)]
    return [annotation]
