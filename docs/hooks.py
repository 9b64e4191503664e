"""What mkdocs does besides: pages that lie elsewhere in the repository, and links to what the site does not have.

``ARCHITECTURE.md`` and the adapters' READMEs are written where one looks for them in the source. Here they become
pages of the site as they are, and links between all pages hold both in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CONTRIBUTING.md": "explanation/contributing.md",
    "CHANGELOG.md": "explanation/changelog.md",
    "README.md": "index.md",
    **{
        f"src/headrace/adapters/{name}/README.md": f"reference/adapters/{name}.md"
        for name in (
            "exec",
            "files",
            "http",
            "kafka",
            "modbus",
            "mqtt",
            "opcua",
            "replay",
            "sim",
            "sparkplug",
        )
    },
}
"""File in the repository → page of the site. The README's place is the page that says the same at greater length."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for source, page in ELSEWHERE.items():
        if source != "README.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    source = next((known for known, uri in ELSEWHERE.items() if uri == here != "index.md"), f"docs/{here}")

    def turn(match: re.Match[str]) -> str:
        mark, text, target, anchor = match.groups()
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = ELSEWHERE.get(wanted) or (wanted.removeprefix("docs/") if wanted.startswith("docs/") else "")
        if uri:
            relative = posixpath.relpath(uri, posixpath.dirname(here) or ".")
            return f"{mark}[{text}]({relative}{anchor or ''})"
        if (ROOT / wanted).exists():  # source code: the site does not have it
            return text if text.startswith("`") else f"{text} (`{wanted}`)"
        return match[0]  # mkdocs says what is wrong with it

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(turn, part) for part in parts)
