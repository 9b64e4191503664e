"""Rules that make rows: columns, templates, captures."""

import pytest

from headrace.adapters.abilities import FoundTag
from headrace.core.errors import ConfigError
from headrace.ingest.tag_files import ForeignTable
from headrace.ingest.tag_rows import COLUMNS, TagRow, rows_of, rows_to_csv
from headrace.ingest.tag_rules import TagRules, tidy_name, value_text

LEVELS = ("site", "area", "line", "device", "signal")


def table(head, *lines):
    return ForeignTable(
        "list.csv", list(head), [list(line) for line in lines], list(range(2, len(lines) + 2))
    )


def only(rows):
    (row,) = rows
    return row


def test_cells_become_headraces_words():
    rules = TagRules.of(LEVELS, adapter="ovens", path="leon/a/l/{device}/{signal}")
    row = only(
        rules.of_table(
            table(
                [
                    "Machine",
                    "Tag  name",
                    "Register",
                    "Type",
                    "Unit",
                    "Kind",
                    "Min",
                    "Max",
                    "States",
                    "Cycle",
                    "Comment",
                ],
                ["o1", "t", "holding:1", "REAL", "°C", "AI", "0,5", "x", "0=off;1=on", "5s", "hello"],
            )
        )
    )
    assert row == TagRow(
        "ovens", "leon/a/l/o1/t", address="holding:1", dtype="f32", unit="degC", low="0.5", high="x", labels="off|on",
        interval="5s", device="o1", signal="t",
    )  # fmt: skip
    row = only(
        rules.of_table(
            table(["device", "tag", "type", "states", "kind"], ["o1", "t", "bool", "1=a|3=b", "odd"])
        )
    )
    assert (row.dtype, row.kind, row.labels) == ("u8", "odd", "1=a|3=b")
    row = only(rules.of_table(table(["device", "tag", "type", "labels"], ["o1", "t", "bool", '["a"]'])))
    assert (row.dtype, row.kind, row.labels) == ("u8", "discrete", '["a"]')


def test_a_path_comes_from_the_template_the_column_the_levels_or_the_names():
    plain = TagRules.of(LEVELS)
    assert only(plain.of_table(table(["path"], ["a/b/c/d/e"]))).path == "a/b/c/d/e"
    levels = table(["Site", "Area", "Line", "Device", "Signal"], ["leon", "paint", "l1", "o1", "t"])
    assert only(plain.of_table(levels)).path == "leon/paint/l1/o1/t"
    assert only(plain.of_table(table(["device", "tag"], ["leon/a/b/c", "t"]))).path == "leon/a/b/c/t"
    row = only(plain.of_table(table(["register"], ["1"])))
    assert (row.path, row.problem) == ("", "nothing says its path: name one with --path")
    rules = TagRules.of(LEVELS, path="{site}/{Area Nr}/x/{device}/{signal}")
    row = only(rules.of_table(table(["device", "tag"], ["o1", "t"])))
    assert (row.path, row.problem) == (
        "",
        "the path needs {site} and {Area Nr}, which this row does not have",
    )


def test_names_are_taken_apart_and_put_together():
    rules = TagRules.of(
        LEVELS,
        captures=[r"device=(?P<line>L\d+)_(?P<machine>\w+)"],
        path="leon/paint/{line}/{machine}/{signal}",
        url="modbus+tcp://{ip}:502?unit={Unit ID}",
        address="holding:{register}:{dtype}",
    )
    head = ["device", "tag", "register", "type", "IP", "Unit ID"]
    row = only(rules.of_table(table(head, ["L7_oven", "t", "100", "REAL", "10.0.0.7", "3"])))
    assert (row.path, row.url, row.address) == (
        "leon/paint/L7/oven/t", "modbus+tcp://10.0.0.7:502?unit=3", "holding:100:f32",
    )  # fmt: skip
    row = only(rules.of_table(table(head, ["oven", "t", "", "REAL", "", "3"])))
    assert row.problem == (
        r"device 'oven' does not match '(?P<line>L\\d+)_(?P<machine>\\w+)'; "
        "the url needs {ip}, which this row does not have; the address needs {register}, which this row does not have; "
        "the path needs {line} and {machine}, which this row does not have"
    )


def test_tidy_makes_names_fit_for_paths():
    assert tidy_name("Oven #1") == "Oven_1"
    assert tidy_name(" /a b//{c}+*,d/\x00") == "a_b/c_d"
    assert tidy_name("###") == ""
    rules = TagRules.of(LEVELS, path="leon/a/l/{device}/{signal}", is_tidy=True)
    row = only(rules.of_table(table(["device", "tag"], ["Oven #1", "T, in"])))
    assert (row.path, row.device) == ("leon/a/l/Oven_1/T_in", "Oven #1")


def test_headings_are_renamed_before_they_are_understood():
    rules = TagRules.of(LEVELS, renames=["PLC Tag=signal", "Tag = device"], path="leon/a/l/{device}/{signal}")
    assert only(rules.of_table(table(["tag", "PLC tag"], ["o1", "t"]))).path == "leon/a/l/o1/t"
    with pytest.raises(ConfigError, match="list.csv has no column 'plctag'"):
        rules.of_table(table(["tag"], ["x"]))
    # A heading that says plainly what it is counts before one that may be understood so; each column is taken once.
    row = only(TagRules.of(LEVELS).of_table(table(["tag", "signal", "path"], ["x", "y", "a/b"])))
    assert row.signal == "y"
    for text, said in (
        ("nothing", "is not written HEADING=COLUMN"), ("=signal", "is not written"), ("a=sgnal", "did you mean 'signal'"),
        ("a=problem", "no column 'problem'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            TagRules.of(LEVELS, renames=[text])
    with pytest.raises(ConfigError, match="can't both be 'signal'"):
        TagRules.of(LEVELS, renames=["a=signal", "b=signal"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device", "is not written FIELD=REGEX"),
        ("device=(", "is no regular expression"),
        ("device=x", "has no named group"),
    ],
)
def test_captures_that_are_none_are_told(text, said):
    with pytest.raises(ConfigError, match=said):
        TagRules.of(LEVELS, captures=[text])


def test_what_a_source_offers_becomes_rows():
    rows = TagRules.of(LEVELS, adapter="b").of_scan(
        [
            FoundTag("leon/a/l/o1", "t", "topic", "f64", "degC", value=1.5),
            FoundTag("leon/a/l/o1", "on", "topic", "u8", kind="discrete", value=True, quality="bad-range"),
            FoundTag("x", "", "x", problem="malformed"),
            FoundTag("leon/a/l/o1", "s", "topic", "string", value=None),
        ]
    )
    assert rows[0] == TagRow(
        "b", "leon/a/l/o1/t", address="topic", dtype="f64", unit="degC", device="leon/a/l/o1", signal="t", value="1.5",
        quality="good",
    )  # fmt: skip
    assert (rows[1].value, rows[1].quality, rows[1].kind) == ("true", "bad-range", "discrete")
    assert rows[2].problem == "nothing says its path: name one with --path; malformed"
    assert (rows[3].value, rows[3].quality) == ("", "")


def test_samples_are_written_short():
    assert [value_text(v) for v in (None, True, False, "x", 2.0, 0.1, 7, float("nan"), float("inf"))] == [
        "", "true", "false", "x", "2", "0.1", "7", "nan", "inf",
    ]  # fmt: skip


# --- the normalised table ----------------------------------------------------------------------------


def test_a_table_is_written_and_read():
    rows = [TagRow("a", "p/q", more={"dead_band": "1"}), TagRow(path="p/r", problem="x", unit='"')]
    lines = rows_to_csv(rows).splitlines()
    head = lines[0].split(",")
    assert head == [*COLUMNS[:11], "dead_band", *COLUMNS[11:]]
    import csv

    found = list(csv.reader(lines))
    assert rows_of(found[0], found[1:], "t") == rows


def test_what_is_no_normalised_table_is_told():
    with pytest.raises(ConfigError, match="list.csv: is no normalised table: it has no column 'path'"):
        rows_of(["tag"], [], "list.csv")
    with pytest.raises(ConfigError, match="has column 'unit' twice"):
        rows_of(["path", "unit", " unit"], [], "list.csv")
    rows = rows_of(["path", "", "low", "high"], [["a", "x", "0,5", "y"], ["", "", "", ""], ["b"]], "t")
    assert rows == [TagRow(path="a", low="0.5", high="y"), TagRow(path="b")]


def test_problems_and_remarks_add_up():
    row = TagRow(path="a").with_problem("x").with_problem("y").with_remark("z").with_remark("w")
    assert (row.problem, row.remark) == ("x; y", "z; w")
    assert row.to_dict() == {"path": "a", "problem": "x; y", "remark": "z; w"}
