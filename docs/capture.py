"""Turn what a terminal showed (as `script` or a pty records it) into a picture: one screen of `headrace demo`.

script -qc "uv run headrace demo --speed 60 --for 30s" typescript
python docs/capture.py typescript docs/demo.svg
"""

from __future__ import annotations

import re
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 104


def screens(recorded: str) -> list[str]:
    """The screens that were drawn one over the other, oldest first."""
    parts = re.split(r"(?:\r?\x1b\[2K|\x1b\[1A)+", recorded.replace("\r\n", "\n"))
    return [part for part in parts if "Ctrl-C ends it" in part]


def picture(screen: str) -> str:
    """One screen as SVG."""
    start = screen.rindex("\x1b", 0, screen.index("headrace demo"))
    text = screen[start : screen.index("Ctrl-C ends it")]
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.rstrip()))
    return console.export_svg(title="headrace demo")


if __name__ == "__main__":
    recorded = Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")
    found = screens(recorded)
    Path(sys.argv[2]).write_text(
        picture(found[int(sys.argv[3]) if len(sys.argv) > 3 else -1]), encoding="utf-8"
    )
