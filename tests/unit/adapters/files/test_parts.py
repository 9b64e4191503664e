"""The files adapter's parts: patterns, positions, and reading that may block."""

import gzip
import json
import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.adapters.files import folder as module
from headrace.adapters.files.config import FileRule, FilesConfig
from headrace.adapters.files.folder import (
    FileReplaced,
    GzipSource,
    ParquetSource,
    ReadingFailed,
    SeenFile,
    TextSource,
    dispose,
    look,
    read_head,
)
from headrace.adapters.files.patterns import compile_file_rule, format_of, parse_file_pattern
from headrace.adapters.files.positions import FILE, FORGET_NS, Ahead, FilePosition, Positions, head_hash
from headrace.adapters.files.simulator import write_parquet
from headrace.adapters.payloads.chunks import cut_lines
from headrace.core.errors import ConfigError, StorageError
from headrace.core.problems import InvalidConfig, validate_section

NOW_NS = 1_800_000_000_000_000_000


def key_of(file):
    found = file.stat()
    return found.st_dev, found.st_ino


def seen_of(file):
    found = file.stat()
    return SeenFile(file.name, key_of(file), found.st_size, found.st_mtime_ns, 0)


# --- patterns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "file", "names"),
    [
        ("*.csv", "a.csv", {}), ("*.csv", "x/a.csv", None), ("**/*.csv", "a.csv", {}), ("**/*.csv", "x/y/a.csv", {}),
        ("{line}/{device}_*.csv", "l1/oven_1_2026.csv", {"line": "l1", "device": "oven"}),
        ("{line}/{device}_*.csv", "l1/.csv", None), ("a(b).{x}", "a(b).c", {"x": "c"}), ("in/**/x", "in/x", {}),
    ],
)  # fmt: skip
def test_patterns(pattern, file, names):
    assert parse_file_pattern(pattern).match(file) == names


@pytest.mark.parametrize(
    "pattern", ["", "/a", "a//b", "../a", "./a", "{A}.csv", "{key}.csv", "{a", "a}", "{}", "{a}/{a}"]
)
def test_patterns_that_can_not_be(pattern):
    with pytest.raises(ConfigError):
        parse_file_pattern(pattern)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "csv"), ("x.y/a.CSV.1", "csv"), ("a.csv-20261123.gz", "csv"), ("a.jsonl.gz", "json"), ("a.lp", "lines"),
        ("a.parquet", "parquet"), ("csv", None), ("x.csv/readme", None), ("a.log", None),
    ],
)  # fmt: skip
def test_formats_by_name(name, kind):
    assert format_of(name, FileRule()) == kind
    assert format_of(name, FileRule(format="csv")) == "csv"


def test_rules():
    rule = compile_file_rule("{device}.csv", FileRule(path="leon/{device}/{key}"), ())
    assert rule.paths.template.fill({"device": "d"}) == "leon/d"
    assert rule.pattern.depth == 1
    assert compile_file_rule("*.lp", FileRule(), ()).series.naming is not None
    with pytest.raises(ConfigError, match="the topic has none|names"):
        compile_file_rule("*.csv", FileRule(path="leon/{device}/{key}"), ())
    for config in ({"after": "move"}, {"move_to": "x"}):
        with pytest.raises(InvalidConfig, match="write both or neither"):
            validate_section(FilesConfig, {"folder": "x", "files": {}, **config}, "x")


# --- positions ---------------------------------------------------------------------------------------


def test_positions_are_kept_and_the_newest_counts(tmp_path):
    one = Positions(tmp_path / "state")
    one.open(NOW_NS)
    one.open(NOW_NS)
    first = FilePosition(1, 2, "a.csv", 3, head_hash(b"abc"), 10, 2, ahead=(Ahead(10, 20, 7),))
    one.note([first, FilePosition(1, 3, "b.csv", at=5, is_done=True)], NOW_NS)
    one.note([FilePosition(1, 2, "a.csv", 3, 9, 30, 4)], NOW_NS + 1)
    one.close()
    one.close()
    log = tmp_path / "state" / FILE
    assert len(log.read_text().splitlines()) == 3
    with log.open("ab") as out:
        out.write(
            b'{"device": 1, "inode": 9, "at": -1, "noted_ns": 1}\n{"inode": 3}\nnothing\n{"device": 1, "inode": 2, "at": 9'
        )
    again = Positions(tmp_path / "state")
    again.open(NOW_NS + 2)
    assert again.get((1, 2)) == FilePosition(1, 2, "a.csv", 3, 9, 30, 4, noted_ns=NOW_NS + 1)
    assert again.get((1, 3)).is_done
    assert again.get((1, 9)) is None
    assert len(log.read_text().splitlines()) == 2
    again.close()
    late = Positions(tmp_path / "state")
    late.open(NOW_NS + FORGET_NS + 1)
    assert list(late.by_key) == [(1, 2)]
    late.close()


def test_ahead_is_read_back():
    one = FilePosition(1, 2, ahead=(Ahead(1, 2, 3), Ahead(2, 5, 4)))
    assert FilePosition.from_json(one.to_json()) == one
    with pytest.raises(ValueError, match="whole numbers"):
        FilePosition.from_json(json.dumps({"device": 1, "inode": 2, "name": 5}))


def test_a_log_is_written_anew_before_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.adapters.files.positions._SPARE_LINES", 4)
    one = Positions(tmp_path)
    one.open(NOW_NS)
    for at in range(50):
        one.note([FilePosition(1, 2, at=at)], NOW_NS)
    one.close()
    assert len((tmp_path / FILE).read_text().splitlines()) < 10


def test_a_disk_that_refuses_is_told_and_tried_again(tmp_path, monkeypatch):
    one = Positions(tmp_path)
    one.open(NOW_NS)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    with pytest.raises(StorageError, match="disk is full"):
        one.note([FilePosition(1, 2, at=5)], NOW_NS)
    monkeypatch.setattr(os, "write", real)
    one.note([FilePosition(1, 3, at=6)], NOW_NS)
    one.close()
    again = Positions(tmp_path)
    again.open(NOW_NS)
    assert (again.get((1, 2)).at, again.get((1, 3)).at) == (5, 6)
    again.close()
    real_open = os.open

    def refuse(path, flags, *rest, **more):
        if str(path).endswith(FILE) and flags & os.O_APPEND:
            raise PermissionError(13, "no")
        return real_open(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="no permission"):
        again.note([FilePosition(1, 2, at=5)], NOW_NS)


def test_without_a_folder_positions_live_as_long_as_the_process():
    one = Positions(None)
    one.open(NOW_NS)
    one.note([FilePosition(1, 2, at=5)], NOW_NS)
    assert one.get((1, 2)).at == 5
    one.close()


# --- the folder --------------------------------------------------------------------------------------


def rules(*patterns):
    return [compile_file_rule(pattern, FileRule(format="csv"), ()) for pattern in patterns]


def test_a_look_finds_files_and_no_others(tmp_path):
    for name in ("a.csv", "b.txt", ".c.csv", "x/d.csv", "x/y/e.csv", "done/f.csv", ".h/g.csv"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text("1")
    os.mkfifo(tmp_path / "p.csv")
    (tmp_path / "link.csv").symlink_to("a.csv")
    (tmp_path / "broken.csv").symlink_to("nothing")
    view = look(tmp_path, rules("*.csv", "x/*.csv"), frozenset(), tmp_path / "done")
    assert [(seen.name, seen.rule) for seen in view.files] == [("a.csv", 0), ("link.csv", 0), ("x/d.csv", 1)]
    deep = look(tmp_path, rules("**/*.csv"), frozenset(), None)
    assert sorted(seen.name for seen in deep.files) == [
        "a.csv",
        "done/f.csv",
        "link.csv",
        "x/d.csv",
        "x/y/e.csv",
    ]
    known = look(tmp_path, rules("*.lp"), {key_of(tmp_path / "b.txt")}, None)
    assert [(seen.name, seen.rule, seen.size_bytes) for seen in known.files] == [("b.txt", -1, 1)]
    with pytest.raises(FileNotFoundError):
        look(tmp_path / "nowhere", rules("*.csv"), frozenset(), None)


def test_a_folder_that_can_not_be_looked_at_costs_no_other(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.csv").write_text("1")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "no")
        return real(path)

    monkeypatch.setattr(module.os, "scandir", scandir)
    view = look(tmp_path, rules("{x}/f.csv"), frozenset(), None)
    assert [seen.name for seen in view.files] == ["b/f.csv"]
    assert view.troubles == {"a": "Permission denied"}


def test_a_text_file_is_read_on(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"a\nbb\nc")
    source, position = TextSource(file, key_of(file)), FilePosition(*key_of(file))
    read = source.read(position, 0, None, cut_lines)
    assert (read.data, read.rest_bytes, read.head_bytes, read.head) == (
        b"a\nbb\n",
        1,
        5,
        head_hash(b"a\nbb\n"),
    )
    assert source.read(position, 2, 5, cut_lines).data == b"bb\n"
    assert source.read(position, 5, None, None).data == b"c"
    known = FilePosition(*key_of(file), head_bytes=5, head=read.head)
    file.write_bytes(b"x\nbb\ncd\n")
    with pytest.raises(FileReplaced):
        source.read(known, 5, None, cut_lines)
    file.write_bytes(b"a\n")
    with pytest.raises(FileReplaced):
        source.read(known, 5, None, cut_lines)
    (tmp_path / "g").write_bytes(b"a\nbb\n")
    (tmp_path / "g").rename(file)
    with pytest.raises(FileReplaced):
        source.read(known, 5, None, cut_lines)
    source.close()


def test_long_lines_are_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)
    monkeypatch.setattr(module, "LINE_BYTES_MAX", 16)
    file, packed = tmp_path / "f", tmp_path / "f.gz"
    file.write_bytes(b"ab\n123456789\n" + b"x" * 40 + b"\n")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    for source in (TextSource(file, key_of(file)), GzipSource(packed, key_of(packed))):
        position = FilePosition(*key_of(packed))
        assert source.read(position, 0, None, cut_lines).data == b"ab\n"
        assert source.read(position, 3, None, cut_lines).data == b"123456789\n"
        read = source.read(position, 13, None, cut_lines)
        assert (read.data, read.rest_bytes) == (b"", 16)
        assert source.read(position, 13, 29, None).data == b"x" * 16
        source.close()


def test_a_compressed_file_is_read_from_anywhere(tmp_path):
    file = tmp_path / "f.gz"
    file.write_bytes(gzip.compress(b"a\nbb\n") + gzip.compress(b"ccc\nd"))
    source, position = GzipSource(file, key_of(file)), FilePosition(*key_of(file))
    read = source.read(position, 0, None, cut_lines)
    assert (read.data, read.rest_bytes) == (b"a\nbb\nccc\n", 1)
    assert source.read(position, 9, None, None).data == b"d"
    assert source.read(position, 2, 5, cut_lines).data == b"bb\n"
    assert read_head(file, 4) == b"a\nbb"
    source.close()
    with pytest.raises(FileReplaced):
        source.read(FilePosition(*key_of(file), head_bytes=2, head=7), 5, None, cut_lines)
    source.close()
    file.write_bytes(gzip.compress(b"x" * 100_000)[:-9])
    for call in (lambda: source.read(position, 0, None, cut_lines), lambda: read_head(file, 200_000)):
        with pytest.raises(ReadingFailed, match="not whole gzip data"):
            call()
    source.close()
    with pytest.raises(FileReplaced):
        GzipSource(file, (0, 0)).read(position, 0, None, cut_lines)


def test_a_parquet_file_is_read_group_by_group(tmp_path):
    file = tmp_path / "f.parquet"
    write_parquet(file, 25, ("a",), 1, 10)
    source = ParquetSource(file, key_of(file))
    assert source.n_groups == 3
    assert [sum(table.num_rows for table in source.read(group)) for group in range(3)] == [10, 10, 5]
    source.close()
    with pytest.raises(FileReplaced):
        ParquetSource(file, (0, 0))
    data = bytearray(file.read_bytes())
    data[30:60] = bytes(30)
    file.write_bytes(data)
    damaged = ParquetSource(file, key_of(file))
    with pytest.raises(ReadingFailed, match="row group 1 of 3 can't be read"):
        list(damaged.read(0))
    damaged.close()
    file.write_bytes(b"nothing")
    with pytest.raises(ReadingFailed, match="not Parquet"):
        ParquetSource(file, key_of(file))
    pq.write_table(pa.table({"a": [1]}), file)


def test_finished_files_are_moved_or_deleted(tmp_path, monkeypatch):
    file, target = tmp_path / "a.csv", tmp_path / "done" / "x" / "a.csv"
    for n in range(3):
        file.write_text(f"{n}")
        assert dispose(file, seen_of(file), target) == ""
    assert [(target.parent / name).read_text() for name in ("a.csv", "a.csv.1", "a.csv.2")] == ["0", "1", "2"]
    file.write_text("grown")
    assert dispose(file, replace(seen_of(file), size_bytes=1), None) == ""
    assert file.exists()
    seen = seen_of(file)
    assert dispose(file, seen, None) == ""
    assert not file.exists()
    assert dispose(file, seen, None) == ""
    file.write_text("1")
    seen = seen_of(file)
    monkeypatch.setattr(module.Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(18, "no")))
    monkeypatch.setattr(module.Path, "unlink", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
    assert dispose(file, seen, target) == f"it can't be moved to {target.parent}: Invalid cross-device link"
    assert dispose(file, seen, None) == "it can't be deleted: Permission denied"


def test_another_file_of_the_same_size_is_not_disposed_of(tmp_path):
    file, other = tmp_path / "a.csv", tmp_path / "b.csv"
    file.write_text("old")
    seen = seen_of(file)
    other.write_text("new")
    os.utime(other, ns=(seen.mtime_ns, seen.mtime_ns))
    other.replace(file)
    assert dispose(file, seen, None) == ""
    assert file.read_text() == "new", "it took the name of the one that was read"
    seen = seen_of(file)
    file.write_text("mod")
    os.utime(file, ns=(0, seen.mtime_ns + 1))
    assert dispose(file, seen, None) == ""
    assert file.read_text() == "mod", "it was written anew"
