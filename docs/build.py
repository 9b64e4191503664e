"""Write the pages that follow from the code: ``python docs/build.py``.

Formats come from the docstrings of the modules that read and write them, metrics from their catalogue, the keys of
plant files from the models that check them, commands from the command line itself, routes from the OpenAPI
description, parts from the name tables and manifests. A test fails where a page and the code differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))


def pages() -> dict[str, str]:
    """File name → text of every page that follows from the code."""
    from generator import codes, commands, formats, parts, plant_file, routes

    from headrace.metrics.catalog import catalog_page

    return {
        "reference/cli.md": commands.page(),
        "reference/codes.md": codes.page(),
        "reference/formats.md": formats.page(),
        "reference/http.md": routes.page(),
        "reference/metrics.md": catalog_page(),
        "reference/parts.md": parts.page(),
        "reference/plant.md": plant_file.page(),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
