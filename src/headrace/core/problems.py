"""What is wrong with a section, in sentences: where, what was found, what is allowed.

Pydantic finds the problems; this module words them. All problems of a file are told at once. What was written
is repeated except where it may be a secret.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from headrace.core.errors import ConfigError
from headrace.core.registry import nearest

M = TypeVar("M", bound=BaseModel)
Loc = tuple[int | str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SECRET = re.compile(r"password|secret|token|key", re.IGNORECASE)
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
        raise InvalidConfig(find_problems(model, e, where)) from None


def find_problems(model: type[BaseModel], error: ValidationError, where: str = "") -> list[Problem]:
    """The problems that pydantic found in a table, worded."""
    found = []
    for detail in error.errors(include_url=False):
        loc: Loc = tuple(detail["loc"])
        prefix = f"{where}." if where and loc else where
        found.append(Problem(prefix + dotted(loc), _message(model, detail, loc)))
    return found


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
        return f"{found} is not {noun}"
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
    parent = _model_at(model, loc[:-1])
    field = None if parent is None else parent.model_fields.get(str(loc[-1]))
    return f"; it says {field.description}" if field is not None and field.description else ""


def known_keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """Keys that the table at `loc` takes, in the order of the documentation."""
    at = _model_at(model, loc)
    return [] if at is None else [f.alias or name for name, f in at.model_fields.items()]


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model of the table at `loc`; None where the table is free."""
    at: Any = model
    for part in loc:
        at = _inside(at, part)
    return at if isinstance(at, type) and issubclass(at, BaseModel) else None


def _inside(annotation: Any, part: int | str) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return None if field is None else _bare(field.annotation)
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, Mapping):
        return _bare(arguments[1])
    return _bare(arguments[0]) if arguments else None


def _bare(annotation: Any) -> Any:
    """What is left of an annotation without ``Annotated`` and ``| None``."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        return _bare(inner[0])
    return annotation
