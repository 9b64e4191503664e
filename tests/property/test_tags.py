"""Tag tables: what is written is read, a difference makes the one of the other, tables say what the devices say."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.config import parse_plant
from headrace.core.layouts import Kind
from headrace.core.profile_tables import cells_of, signal_of
from headrace.core.settings import SignalSettings
from headrace.ingest.tag_changes import TagDifference
from headrace.ingest.tag_checks import TagChecks
from headrace.ingest.tag_files import read_foreign
from headrace.ingest.tag_rows import COLUMNS, TagRow, rows_of, rows_to_csv
from headrace.ingest.tag_rules import TagRules, tidy_name
from headrace.ingest.tag_sets import TaggedDevice, devices_of, devices_of_rows, rows_of_devices, tables_of
from headrace.ingest.tag_words import number_of, unit_of

LEVELS = ("site", "device", "signal")
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=8)
NAME = st.text("abcüX0129_-.", min_size=1, max_size=5).filter(lambda name: not name.isspace())
NUMBER = st.floats(allow_nan=False)
LABELS = st.lists(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r"), max_size=6), max_size=3
).map(tuple)


@st.composite
def signals(draw):
    low, high = draw(st.one_of(st.none(), NUMBER)), draw(st.one_of(st.none(), NUMBER))
    return SignalSettings(
        address=draw(TEXT), unit=draw(st.one_of(st.just(""), TEXT)), kind=draw(st.sampled_from(list(Kind))),
        limits=(low, high), labels=draw(LABELS),
    )  # fmt: skip


DEVICE_SIGNALS = st.dictionaries(NAME, signals(), min_size=1, max_size=4)
FIELDS = st.fixed_dictionaries(
    {"url": TEXT}, optional={"interval": st.sampled_from(["1s", "5s"]), "note": TEXT}
)


@st.composite
def device_sets(draw):
    """Devices of which many report the same."""
    kinds = draw(st.lists(DEVICE_SIGNALS, min_size=1, max_size=3))
    names = draw(st.lists(NAME, max_size=6, unique=True))
    return {
        f"p/{name}": TaggedDevice(f"p/{name}", draw(FIELDS), draw(st.sampled_from(kinds))) for name in names
    }


@settings(max_examples=30)
@given(signals())
def test_a_signal_comes_back_from_its_cells(signal):
    assert signal_of(cells_of(signal), "") == signal


@settings(max_examples=30)
@given(device_sets(), device_sets())
def test_a_difference_makes_the_one_of_the_other_and_its_inverse_takes_it_back(before, after):
    found = TagDifference.between(before, after)
    assert found.applied(before) == after
    assert found.inverse().applied(after) == before
    assert bool(found) == (before != after)
    assert not TagDifference.between(before, found.inverse().applied(after))
    back, counts = TagDifference.between(after, before).counts(), found.counts()
    for what in ("devices", "signals"):
        assert back[f"{what}_added"] == counts[f"{what}_removed"]
        assert back[f"{what}_changed"] == counts[f"{what}_changed"]


def plant(shared, devices="", tags=""):
    data = {
        "version": 1,
        "plant": {"levels": list(LEVELS)},
        "profiles": {f"shared{n}": {k: {"address": s.address, "unit": s.unit} for k, s in one.items()} for n, one in enumerate(shared)},
        "adapters": {"x": {"protocol": "modbus", "devices": "d.csv", "tags": "t.csv"}},
    }  # fmt: skip
    return parse_plant(data, Path()).with_tables({"d.csv": devices, "t.csv": tags})


@settings(max_examples=25)
@given(st.lists(DEVICE_SIGNALS, max_size=2), device_sets(), device_sets())
def test_tables_say_what_the_devices_say_whatever_they_said_before(shared, first, second):
    config = plant(shared)
    for devices in (first, second, first):
        tables = tables_of(config, "x", devices)
        config = config.with_tables(tables)
        found = devices_of(config, "x")
        assert found == devices
        assert tables_of(config, "x", found) == tables, "nothing changed, so nothing is written otherwise"


@settings(max_examples=30)
@given(device_sets())
def test_the_table_of_a_plant_makes_the_plant_again(devices):
    rows = rows_of_devices("x", devices)
    table = rows_to_csv(rows)
    assert devices_of_rows(read_back(table), LEVELS, {}) == devices


def read_back(table):
    import csv
    import io

    lines = list(csv.reader(io.StringIO(table, newline="")))
    return rows_of(lines[0], lines[1:], "t")


CELL = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00\r"), max_size=12).map(
    str.strip
)


@settings(max_examples=30)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys((*COLUMNS, "note"), CELL)), max_size=5))
def test_any_table_is_checked_without_a_crash_and_comes_back_as_it_was(cells):
    cells = [{k: v for k, v in one.items() if v and k not in ("low", "high")} for one in cells]
    rows = [
        TagRow(
            **{k: v for k, v in one.items() if k in COLUMNS},
            more={k: v for k, v in one.items() if k == "note"},
        )
        for one in cells
        if one
    ]
    assert read_back(rows_to_csv(rows)) == rows
    checked = TagChecks(LEVELS).check(rows)
    assert len(checked) == len(rows)
    for row, after in zip(rows, checked, strict=True):
        assert after.path == row.path
        assert after.problem.startswith(row.problem)


@settings(max_examples=25)
@given(st.binary(max_size=200), st.booleans())
def test_any_file_is_a_table_or_a_plain_error(tmp_path_factory, data, is_tidy):
    from headrace.core.errors import ConfigError

    path = tmp_path_factory.mktemp("any") / "list.csv"
    path.write_bytes(data)
    try:
        table = read_foreign(path)
    except ConfigError:
        return
    rows = TagRules.of(LEVELS, path="p/{device}/{signal}", is_tidy=is_tidy).of_table(table)
    assert len(TagChecks(LEVELS).check(rows)) == len(table.lines)


@settings(max_examples=30)
@given(st.text(max_size=20))
def test_a_tidy_name_is_fit_for_a_path_and_stays_as_it_is(name):
    from headrace.core.paths import check_path

    tidy = tidy_name(name)
    assert tidy_name(tidy) == tidy
    if tidy:
        check_path(tidy)


@settings(max_examples=30)
@given(st.text(max_size=8))
def test_a_unit_in_one_spelling_stays_so(text):
    assert unit_of(unit_of(text)) == unit_of(text)


@settings(max_examples=30)
@given(st.floats(-1e9, 1e9).map(lambda x: round(x, 3)), st.sampled_from([".", ","]), st.booleans())
def test_numbers_of_offices_are_read(number, mark, is_grouped):
    text = f"{number:,.3f}" if is_grouped else f"{number:.3f}"
    text = text.translate(str.maketrans({".": mark, ",": {".": ",", ",": "."}[mark]}))
    assert number_of(text) == number
