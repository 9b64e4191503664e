import json
import math

import pytest

from headrace.cli import output
from headrace.core.clock import NO_TIME, NS
from headrace.core.errors import ConfigError


def test_table_aligns_columns_and_leaves_no_trailing_blanks():
    text = output.table(("name", "n"), [["ovens", "1"], ["b", "1,000"]], right=(1,))
    assert [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in text.splitlines()] == [
        "name       n",
        "ovens      1",
        "b      1,000",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"), (0.85, "850 ms"), (1.0, "1.0 s"), (59.96, "1 min"), (61, "1 min 1 s"), (3_660, "1 h 1 min"),
        (86_399, "1 d"), (90_000, "1 d 1 h"), (1e9, "11,574 d"),
    ],
)  # fmt: skip
def test_span_is_one_or_two_units(seconds, text):
    assert output.span(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (999_500, "1 MB"), (1.5e9, "1.5 GB"), (5e15, "5,000 TB")],
)
def test_size_in_decimal_units(n, text):
    assert output.size(n) == text


def test_age_of_what_never_happened():
    assert output.age(NO_TIME, 5 * NS) == "never"
    assert output.age(6 * NS, 5 * NS) == "now"
    assert output.age(2 * NS, 5 * NS) == "3.0 s ago"


def test_numbers_for_people():
    assert [output.number(v) for v in (None, math.nan, 1.0, 182.43210987, 7, True)] == [
        "-", "-", "1", "182.4321", "7", "True",
    ]  # fmt: skip


def test_json_is_one_document_without_nan(capsys):
    output.emit_json({"a": math.nan, "b": (1, math.inf, {"c": "ä"})})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1, None, {"c": "ä"}]}


def test_binary_is_refused_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(ConfigError, match="send it to a file"):
        output.emit_bytes(b"x", output.Format.PARQUET)
