"""Tables of devices: in the plant file, or in a CSV file beside it, which may have changed since."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from headrace.core.errors import ConfigError
from headrace.core.profiles import Parameter


def device_rows(
    source: str | Mapping[str, Any], folder: Path, tables: Mapping[str, str] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Devices as (path, fields): from a table of path → url or settings with one, or the name of a CSV file.

    The CSV file lies beside the plant file and has a head line; columns ``path`` and ``url`` are needed. Where `tables`
    has its text, that counts.

    Raises
    ------
    ConfigError : the file can't be read, or a row lacks a path or url, or a path is there twice.
    """
    if not isinstance(source, str):
        return [
            (path, {"url": device} if isinstance(device, str) else device.model_dump(exclude_none=True))
            for path, device in source.items()
        ]
    file = folder / source
    try:
        if tables is not None and source in tables:
            rows = list(csv.DictReader(io.StringIO(tables[source], newline="")))
        else:
            with file.open(newline="", encoding="utf-8-sig") as lines:
                rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"device table {file} can't be read: {e}") from e
    out: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 2):
        fields = {k: v.strip() for k, v in row.items() if k and v and v.strip()}
        path = fields.pop("path", "")
        if not path or "url" not in fields:
            raise ConfigError("a device needs a path and a url", where=f"{file}:{number}")
        if path in out:
            raise ConfigError(f"device {path!r} is there twice", where=f"{file}:{number}")
        out[path] = fields
    return list(out.items())


def device_parameters(fields: Mapping[str, Any], columns: Collection[str]) -> dict[str, Parameter]:
    """What a device gives for the parameters of its profile: a table, or all other columns of a CSV file.

    Parameters
    ----------
    columns : that say something else of a device.

    Raises
    ------
    ConfigError : a CSV file has them in one column.
    """
    table = fields.get("parameters", {})
    if not isinstance(table, Mapping):
        raise ConfigError("parameters have a column each, named as they are")
    return {**table, **{key: value for key, value in fields.items() if key not in (*columns, "parameters")}}
