"""Tables as people have them."""

import builtins
from datetime import date, datetime

import openpyxl
import pytest

from headrace.core.errors import ConfigError, PluginError
from headrace.ingest.tag_files import read_foreign, text_of

HEAD, LINES = ["device", "tag", "low"], [["oven 1", "t", "0,5"], ["oven 2", "t", "1"]]


def read(tmp_path, data, name="list.csv"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_foreign(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_any_encoding_and_delimiter_is_read(tmp_path, encoding, mark):
    text = "\r\n".join(mark.join(line) for line in (["Gerät", "Größe", "min"], *LINES)) + "\r\n"
    found = read(tmp_path, text.encode(encoding))
    assert (found.head, found.lines, found.numbers) == (["Gerät", "Größe", "min"], LINES, [2, 3])


def test_a_comma_parts_cells_unless_it_is_in_the_numbers(tmp_path):
    assert read(tmp_path, "device,tag\na,b\n").lines == [["a", "b"]]
    assert read(tmp_path, 'device,tag\n"a, b",c\n').lines == [["a, b", "c"]]
    assert read(tmp_path, "device;low;high\na;0,5;1,5\nb;1,5;2,5\n").lines[0] == ["a", "0,5", "1,5"]
    assert read(tmp_path, "sep=;\ndevice;tag\na;b\n").head == ["device", "tag"]
    assert read(tmp_path, "signal\na\n").lines == [["a"]]


def test_the_head_line_is_found_below_titles_and_empty_lines(tmp_path):
    text = "Plant Leon;;\n\nas of 2026;;\nDevice;Tag name;Register\na;b;1\n\nc;d;2\n"
    found = read(tmp_path, text)
    assert (found.head, found.numbers) == (["Device", "Tag name", "Register"], [5, 7])
    assert read(tmp_path, "x;y\n1;2\n").head == ["x", "y"], "the first where nothing is understood"


def test_spreadsheets_are_read_as_people_see_them(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Plant Leon"])
    sheet.append(["Device", "Tag", "Register", "High", "Active", "Since", "At", "Note"])
    sheet.append(["oven 1", "t", 100, 400.5, True, date(2026, 1, 2), datetime(2026, 1, 2, 3), None])  # noqa: DTZ001
    book.create_sheet("Other").append(["Signal", "Unit"])
    book.save(tmp_path / "list.xlsx")
    found = read_foreign(tmp_path / "list.xlsx")
    assert found.head == ["Device", "Tag", "Register", "High", "Active", "Since", "At", "Note"]
    assert found.lines == [["oven 1", "t", "100", "400.5", "true", "2026-01-02", "2026-01-02T03:00:00", ""]]
    assert found.numbers == [3]
    assert read_foreign(tmp_path / "list.xlsx", "Other").head == ["Signal", "Unit"]
    with pytest.raises(ConfigError, match="has no sheet 'Third'; it has Sheet, Other"):
        read_foreign(tmp_path / "list.xlsx", "Third")
    sheet.cell(3, 5).value = False
    book.save(tmp_path / "list.xlsx")
    assert read_foreign(tmp_path / "list.xlsx").lines[0][4] == "false"


def test_what_is_no_table_is_told(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"gone.csv: can't be read: No such file"):
        read_foreign(tmp_path / "gone.csv")
    with pytest.raises(ConfigError, match="is empty"):
        read(tmp_path, "\n ;\n")
    with pytest.raises(ConfigError, match="is no spreadsheet that can be read"):
        read(tmp_path, b"PK no", "list.xlsx")
    with pytest.raises(ConfigError, match="is not a CSV table"):
        read(tmp_path, "a,b\n" + "x" * (1 << 18) + ",c\n")
    known = builtins.__import__

    def without(name, *rest):
        if name == "python_calamine":
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PluginError, match=r"pip install 'headrace\[excel\]', or save it as CSV"):
        read(tmp_path, b"PK", "list.xlsx")


def test_bytes_that_are_no_text_are_still_read():
    assert text_of(b"a\x81\xff") == "a\ufffd\xff"
    assert text_of(b"\xff\xfea") == "\ufffd"
