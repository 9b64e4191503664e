"""Adapters, payload decoders, operators and codecs: the name tables and what each part says of itself."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import tomllib
from importlib.resources import files
from typing import Any

from generator.prose import NOTICE, code, markdown, table
from headrace.adapters.registry import ADAPTERS, PAYLOADS
from headrace.codecs.registry import TIME_CODECS, VALUE_CODECS, is_lossy
from headrace.core.registry import Registry
from headrace.pipeline.operators.registry import OPERATORS

HEAD = """\
# Adapters, operators, codecs

What is built in. `headrace plugins list` also has what installed packages add; [write a plug-in](../how-to/plugins.md)
says how one is made.
"""
_OPERATORS_TEXT = """\
## Operators

The steps of `[pipelines.NAME]`, in order. A step that makes windows comes last. Pipelines built in Python have the same
steps: `Pipeline("name").step("scale", factor=0.1)`.
"""
_KINDS = {"float": "number", "str": "text", "Any": "text", "tuple[str,": "list of texts"}


def page() -> str:
    """The page of all parts."""
    parts = [HEAD, NOTICE, _adapters(), _payloads(), _OPERATORS_TEXT]
    parts += [_operator(name) for name in OPERATORS.built_in]
    parts += [_windows(), _codecs()]
    return "\n".join(parts)


def _adapters() -> str:
    rows, rules = [], []
    for name in ADAPTERS.built_in:
        facts = _manifest(ADAPTERS, name)
        page = f"[{code(name)}](../../src/headrace/adapters/{name}/README.md)"
        extra = code(facts["extra"]) if facts["extra"] else "–"
        protocols = ", ".join(facts["protocols"])
        rows.append((page, protocols, facts["direction"], facts["delivery"], facts["time"], extra))
        rules += [(code(name), rule.replace("-", " "), code(where)) for rule, where in facts["rules"].items()]
    head = ("`protocol`", "speaks", "direction", "delivery", "time of a sample", "extra")
    text = "## Adapters\n\n" + table(head, rows)
    text += "\nTheir keys are in [`plant.toml`](plant.md#adapters). All are beta. An extra is installed with them: "
    text += "`pip install 'headrace[modbus]'`.\n"
    assert all(_manifest(ADAPTERS, name)["stability"] == "beta" for name in ADAPTERS.built_in)
    text += "\n### What they are tested for\n\n" + table(("adapter", "rule", "shown by"), rules)
    return text


def _manifest(registry: Registry, name: str) -> dict[str, Any]:
    package = registry.built_in[name].partition(":")[0].rpartition(".")[0]
    return tomllib.loads(files(package).joinpath("manifest.toml").read_text(encoding="utf-8"))


def _payloads() -> str:
    rows = [(code(name), _first_paragraph(PAYLOADS, name)) for name in PAYLOADS.built_in]
    text = "## Payloads\n\nHow the messages of a topic are written: `values` of a rule of the MQTT and Kafka adapters.\n\n"
    return text + table(("`values`", "reads"), rows)


def _operator(name: str) -> str:
    operator = OPERATORS.load(name)
    module = OPERATORS.built_in[name].partition(":")[0]
    text = inspect.getdoc(importlib.import_module(module)) or ""
    rows = [
        (code(field.name), _kind(str(field.type)), _default(field))
        for field in dataclasses.fields(operator)
        if not field.name.startswith("_")
    ]
    keys = table(("key", "type", "default"), rows)
    return f'### `op = "{name}"` {{ #{name} }}\n\n{_without_roles(markdown(text))}\n\n{keys}'


def _windows() -> str:
    text = inspect.getdoc(importlib.import_module("headrace.pipeline.windowing")) or ""
    return f"### When windows close {{ #windows }}\n\n{_without_roles(text)}\n"


def _kind(annotation: str) -> str:
    return _KINDS[annotation.split(" ")[0]]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "**needed**"
    if field.default is None or field.default == ():
        return "–"
    return code(json.dumps(field.default))


def _without_roles(text: str) -> str:
    """Double backticks of literals read the same as single ones, and look better in tables."""
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _codecs() -> str:
    bounded = [n for n in VALUE_CODECS.built_in if is_lossy(VALUE_CODECS.load(n))]
    exact = [n for n in VALUE_CODECS.built_in if n not in bounded]
    values, lossy = (
        [(code(n), _first_paragraph(VALUE_CODECS, n)) for n in names] for names in (exact, bounded)
    )
    times = [(code(name), _first_paragraph(TIME_CODECS, name)) for name in TIME_CODECS.built_in]
    text = "## Codecs\n\nThe store chooses the codec of each chunk by the size that comes out; "
    text += "[`[codecs.NAME]`](plant.md#codecs) steers it. "
    text += "What is written is decoded again and compared: bit for bit, or against the bound.\n\n"
    head = ("codec", "packs")
    sections = (("Of values", values), ("Of values, within a bound", lossy), ("Of times", times))
    return text + "\n".join(f"### {title}\n\n{table(head, rows)}" for title, rows in sections)


def _first_paragraph(registry: Registry, name: str) -> str:
    module = registry.built_in[name].partition(":")[0]
    text = inspect.getdoc(importlib.import_module(module)) or ""
    return _without_roles(text.partition("\n\n")[0])
