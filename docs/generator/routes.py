"""The routes of the public port: their OpenAPI description."""

from __future__ import annotations

import json
from typing import Any

from generator.prose import NOTICE, code, table
from headrace.api.access import needed_role
from headrace.api.app import create_interface
from headrace.api.backend import Backend
from headrace.api.settings import ApiSettings
from headrace.core.clock import SystemClock

HEAD = """\
# HTTP interface

One port, by default `http://127.0.0.1:8844`. A running plant serves this page's content at `/docs`, and for programs at
`/openapi.json`.

- Times are RFC 3339 with nanoseconds, ids 16 hexadecimal digits.
- Errors are problem documents (RFC 9457, `application/problem+json`) with a `code` of a
  [closed set](codes.md#problems). Prometheus' and InfluxDB's routes say errors as those do.
- Where the plant file has tokens, each request carries one: `Authorization: Bearer TOKEN`. The role beside each route is
  the least that may ask it; [access from the network](../how-to/secure.md) says how tokens are made.
- What is asked for of any size is read and sent piece by piece. Overload is 429 or 503 with `Retry-After`.
"""
_PROMETHEUS = "/prometheus/"
"""Its routes take each GET as a POST with a form, too."""
_TITLES = {"prometheus": "Prometheus", "query": "Queries", "other": "Further"}


def page() -> str:
    """The page of all routes."""
    schema = _schema()
    by_tag: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if method == "post" and path.startswith(_PROMETHEUS):
                continue
            tag = (operation.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append(_operation(path, method, operation))
    parts = [HEAD, NOTICE]
    for tag, operations in by_tag.items():
        parts += [f"## {_TITLES.get(tag, tag.capitalize())}\n", *operations]
    return "\n".join(parts)


def _schema() -> dict[str, Any]:
    """The description, of an application that never answers anybody."""
    backend = Backend(ApiSettings(store="", control="", key="", pid=0), SystemClock())
    schema: dict[str, Any] = create_interface(backend).openapi()
    return schema


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    role = needed_role(method.upper(), path)
    who = "everybody" if role is None else f"the role *{role.name.lower()}*"
    verbs = method.upper() + (", POST" if path.startswith(_PROMETHEUS) else "")
    parts = [f"### `{verbs} {path}`\n", f"For {who}.\n"]
    parts.append((operation.get("description") or operation.get("summary") or "").strip() + "\n")
    rows = [_parameter(one) for one in operation.get("parameters", [])]
    if rows:
        parts.append(table(("parameter", "in", "meaning"), rows))
    parts.append(_body(operation.get("requestBody", {})))
    parts.append(_answers(operation.get("responses", {})))
    return "\n".join(part for part in parts if part)


def _parameter(one: dict[str, Any]) -> tuple[str, str, str]:
    text = one.get("description", "")
    words = one.get("schema", {}).get("enum", ())
    if words and not all(str(word) in text for word in words):
        text = f"{text} {', '.join(code(str(word)) for word in words)}"
    if one.get("required") and one["in"] != "path":
        text += " (needed)"
    return code(one["name"]), one["in"], text.strip()


def _body(body: dict[str, Any]) -> str:
    kinds = [code(kind) for kind in body.get("content", {})]
    return f"Body: {', '.join(kinds)}\n" if kinds else ""


def _answers(responses: dict[str, Any]) -> str:
    """What comes back where all is well."""
    out = []
    for status, answer in responses.items():
        if not status.startswith("2"):
            continue
        content = answer.get("content", {})
        kinds = ", ".join(code(kind) for kind in content)
        text = answer.get("description", "")
        text = "" if text == "Successful Response" else text
        said = ": ".join(part for part in (text, kinds) if part)
        out.append(f"Answer {status}" + (f", {said}" if said else "") + "\n")
        for kind, shown in content.items():
            if "example" in shown and kind == "application/json":
                example = json.dumps(shown["example"], indent=2)
                out.append(f"```json\n{example}\n```\n")
    return "\n".join(out)
