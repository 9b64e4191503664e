"""The documentation of this interface, made from its own description: no script, nothing from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

router = APIRouter()
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: #8881; border-radius: 6px; padding: .7rem; overflow-x: auto; }
details { border: 1px solid #8884; border-radius: 8px; margin: .5rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; } summary b { display: inline-block; min-width: 3.6rem; }
table { border-collapse: collapse; } td { padding: .15rem .8rem .15rem 0; vertical-align: top; }
@media (prefers-color-scheme: dark) { body { background: #16181d; color: #e4e6eb; } a { color: #8ab4f8; } }
"""


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Every route with its parameters and examples."""
    schema = request.app.openapi()
    parts = [f"<h1>{_text(schema['info']['title'])} {_text(schema['info']['version'])}</h1>"]
    parts.append(_prose(schema["info"].get("description", "")))
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a></p>')
    by_tag: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append(_operation(path, method, operation))
    for tag, operations in by_tag.items():
        parts += [f"<h2>{_text(tag)}</h2>", *operations]
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Headrace API</title><style>{_STYLE}</style>'
    page += '<meta name="viewport" content="width=device-width">' + "".join(parts)
    return HTMLResponse(page)


def _text(value: Any) -> str:
    return html.escape(str(value))


def _prose(text: str) -> str:
    return "".join(f"<p>{_text(part)}</p>" for part in text.split("\n\n") if part.strip())


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    text = operation.get("description") or operation.get("summary") or ""
    first, _, rest = text.partition("\n\n")
    out = [f"<details><summary><b>{method.upper()}</b> <code>{_text(path)}</code> {_text(first)}</summary>"]
    out.append(_prose(rest))
    rows = [_parameter(one) for one in operation.get("parameters", [])]
    if rows:
        out.append(f"<table>{''.join(rows)}</table>")
    for status, answer in operation.get("responses", {}).items():
        out.append(f"<p><b>{_text(status)}</b> {_text(answer.get('description', ''))}</p>")
        for kind, content in answer.get("content", {}).items():
            if "example" in content:
                shown = content["example"]
                shown = shown if isinstance(shown, str) else json.dumps(shown, indent=2)
                out.append(f"<p><code>{_text(kind)}</code></p><pre>{_text(shown)}</pre>")
    return "".join([*out, "</details>"])


def _parameter(one: dict[str, Any]) -> str:
    needed = "needed" if one.get("required") else ""
    return (
        f"<tr><td><code>{_text(one['name'])}</code></td><td>{_text(one['in'])}</td><td>{needed}</td>"
        f"<td>{_text(one.get('description', ''))}</td></tr>"
    )
