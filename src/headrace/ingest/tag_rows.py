"""The normalised tag table: a row a signal, whoever it came from.

Whatever a factory's signals are found in (a spreadsheet, a scan of its devices, the plant that runs), they become rows
of this table: where each is in the plant, where its source has it, what it is. People read and change it, and
``tags diff`` and ``tags apply`` take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from headrace.core.errors import ConfigError
from headrace.core.profile_tables import MORE_COLUMNS, number_text, write_lines
from headrace.ingest.tag_words import number_of


@dataclass(frozen=True, slots=True)
class TagRow:
    """One signal. All are texts, as in the table; an empty one says nothing.

    Parameters
    ----------
    adapter : of the plant file. path : of the sensor, all levels; its device's path and the signal.
    url : of the device. address : of the signal, as the adapter's profiles write it.
    dtype : value type; unit, kind, low, high, labels : as a signal of a plant file has them. interval : of the device.
    device, signal : what the source calls them. value, quality : a sample, where one is known.
    problem : why it can't be taken as it is. remark : what somebody should look at.
    more : other columns: further keys of a signal, or of a device.
    """

    adapter: str = ""
    path: str = ""
    url: str = ""
    address: str = ""
    dtype: str = ""
    unit: str = ""
    kind: str = ""
    low: str = ""
    high: str = ""
    labels: str = ""
    interval: str = ""
    device: str = ""
    signal: str = ""
    value: str = ""
    quality: str = ""
    problem: str = ""
    remark: str = ""
    more: Mapping[str, str] = field(default_factory=dict)

    def with_problem(self, text: str) -> TagRow:
        """The same with one problem more."""
        return replace(self, problem=f"{self.problem}; {text}" if self.problem else text)

    def with_remark(self, text: str) -> TagRow:
        """The same with one remark more."""
        return replace(self, remark=f"{self.remark}; {text}" if self.remark else text)

    def to_dict(self) -> dict[str, str]:
        """Columns that say something, JSON-ready."""
        return {
            name: text
            for name, text in {**{c: getattr(self, c) for c in COLUMNS}, **self.more}.items()
            if text
        }


COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(TagRow) if f.name != "more")
"""Columns of the table, in its order; others come before `device`."""
_SOURCE = COLUMNS.index("device")


def rows_to_csv(rows: Sequence[TagRow]) -> str:
    """The table as CSV text. Columns that only some tables have are there where a row has them."""
    more = dict.fromkeys(name for row in rows for name in row.more)
    ordered = [
        *(name for name in MORE_COLUMNS if name in more),
        *(name for name in more if name not in MORE_COLUMNS),
    ]
    return write_lines([*COLUMNS[:_SOURCE], *ordered, *COLUMNS[_SOURCE:]], (row.to_dict() for row in rows))


def rows_of(head: Sequence[str], lines: Iterable[Sequence[str]], where: str) -> list[TagRow]:
    """Rows of a normalised table, from its cells.

    Parameters
    ----------
    where : what the file is called.

    Raises
    ------
    ConfigError : it has no column `path`, or a column twice.
    """
    names = [name.strip() for name in head]
    if "path" not in names:
        raise ConfigError(
            "is no normalised table: it has no column 'path'. Make one of it with: headrace tags import",
            where,
        )
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"has column {twice!r} twice", where)
    found = []
    for line in lines:
        cells = {name: text.strip() for name, text in zip(names, line, strict=False) if name and text.strip()}
        if cells:
            known = {name: cells.pop(name) for name in COLUMNS if name in cells}
            for name in ("low", "high"):  # an office may have written them its own way
                number = number_of(known.get(name, ""))
                known |= {} if number is None else {name: number_text(number)}
            found.append(TagRow(**known, more=cells))
    return found
