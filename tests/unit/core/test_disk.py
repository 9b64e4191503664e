import contextlib
import errno
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from headrace.core import disk as disk_module
from headrace.core.disk import LocalDisk
from headrace.core.errors import NotFound, StorageError


@pytest.fixture
def disk(tmp_path):
    return LocalDisk(tmp_path / "plant" / "store")


def child(code, *arguments, **options):
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, **options,
    )  # fmt: skip


def refuse(monkeypatch, module, name, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, fail)


def test_what_is_put_can_be_read(disk):
    assert disk.put_if_absent("a/b/c.bin", b"first")
    assert bytes(disk.read("a/b/c.bin")) == b"first"
    assert disk.size("a/b/c.bin") == 5
    disk.replace("a/b/c.bin", memoryview(b"second"))
    assert bytes(disk.read("a/b/c.bin")) == b"second"


def test_a_file_is_created_once(disk):
    assert disk.put_if_absent("a", b"first")
    assert not disk.put_if_absent("a", b"second")
    assert bytes(disk.read("a")) == b"first"


def test_of_many_threads_one_creates_the_file(disk):
    created = []
    ready = threading.Barrier(8)

    def put(i):
        ready.wait()
        if disk.put_if_absent("x/y/z", b"%d" % i * 10_000):
            created.append(i)

    threads = [threading.Thread(target=put, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 1
    assert bytes(disk.read("x/y/z")) == b"%d" % created[0] * 10_000
    assert [p.name for p in (disk.root / "x" / "y").iterdir()] == ["z"]


def test_a_new_file_and_its_folders_are_synced_before_it_is_told(disk, monkeypatch):
    synced = []
    real = disk_module.sync_folder
    monkeypatch.setattr(disk_module, "sync_folder", lambda f: (synced.append(f), real(f)))
    disk.put_if_absent("a/b", b"")
    top = disk.root
    assert synced == [top.parent.parent, top.parent, top, top / "a"]
    synced.clear()
    assert not disk.put_if_absent("a/b", b"")
    assert synced == [top / "a"]


def test_files_grow_at_the_end(disk):
    file = disk.append("journal/1/0.hrj")
    file.write([b"one", b"", bytearray(b"two"), memoryview(b"three")])
    file.sync()
    file.write([])
    file.write([b"x" * 10] * 1_500)
    file.sync()
    file.close()
    assert bytes(disk.read("journal/1/0.hrj")) == b"onetwothree" + b"x" * 15_000
    with pytest.raises(FileExistsError):
        disk.append("journal/1/0.hrj")


def test_a_write_that_the_system_splits_is_completed(disk, monkeypatch):
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, data: real(fd, [data[0][:2]]))
    file = disk.append("a")
    file.write([b"abc", b"defgh"])
    file.close()
    assert bytes(disk.read("a")) == b"abcdefgh"


@pytest.mark.parametrize("system", ["refuses", "has none"])
def test_a_sync_holds_where_the_page_cache_takes_no_advice(disk, monkeypatch, system):
    def refuse(*_):
        raise OSError(errno.EINVAL, "no advice taken here")

    if system == "refuses":
        monkeypatch.setattr(os, "posix_fadvise", refuse)
    else:
        monkeypatch.delattr(os, "posix_fadvise")
    file = disk.append("a")
    file.write([b"abc"])
    file.sync()
    file.write([b"def"])
    file.sync()
    file.close()
    assert bytes(disk.read("a")) == b"abcdef"


def test_a_torn_tail_is_cut(disk):
    disk.replace("a", b"whole and torn")
    disk.truncate("a", 5)
    assert bytes(disk.read("a")) == b"whole"


def test_files_are_listed_in_order_without_hidden_ones(disk):
    assert disk.list("") == []
    assert disk.list("none") == []
    for path in ("b/2", "b/10", "a", "b/c/d", "b/.hidden"):
        disk.replace(path, b"")
    assert disk.list("") == ["a", "b/10", "b/2", "b/c/d"]
    assert disk.list("b") == ["b/10", "b/2", "b/c/d"]


def test_an_empty_file_reads_as_nothing(disk):
    disk.replace("a", b"")
    assert bytes(disk.read("a")) == b""


def test_a_file_that_is_gone(disk):
    disk.delete("a")
    with pytest.raises(NotFound, match="does not exist"):
        disk.read("a")
    with pytest.raises(NotFound, match="does not exist"):
        disk.size("a")


def test_a_deleted_file_stays_readable_for_who_has_it(disk):
    disk.replace("a", b"still here")
    data = disk.read("a")
    disk.delete("a")
    assert bytes(data) == b"still here"
    assert disk.list("") == []


def test_free_space_is_told_before_the_folder_exists(disk):
    assert not disk.root.exists()
    assert disk.free_bytes() > 0


# --- a disk that refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize(
    ("act", "module", "name"),
    [
        (lambda d: d.put_if_absent("a", b"x"), os, "fsync"),
        (lambda d: d.put_if_absent("a", b"x"), os, "link"),
        (lambda d: d.replace("a", b"x"), os, "fsync"),
        (lambda d: d.append("b"), os, "open"),
        (lambda d: d.truncate("kept", 1), os, "fsync"),
        (lambda d: d.read("kept"), os, "fstat"),
        (lambda d: d.free_bytes(), os, "statvfs"),
        (lambda d: d.lock(), os, "pwrite"),
        (lambda d: d.lock(), os, "open"),
    ],
)
def test_a_refusal_is_a_sentence(disk, monkeypatch, act, module, name, number, says):
    disk.replace("kept", b"kept")
    with monkeypatch.context() as patch:
        refuse(patch, module, name, number)
        with pytest.raises(StorageError, match=f"can't .*store.*: {says}"):
            act(disk)
    assert disk.list("") in (["kept"], ["b", "kept"])
    assert disk.size("kept") in (1, 4)
    assert not [p for p in disk.root.iterdir() if p.name.endswith(".tmp")]
    disk.lock()


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT])
def test_a_growing_file_tells_refusals(disk, monkeypatch, number):
    file = disk.append("a")
    refuse(monkeypatch, os, "writev", number)
    refuse(monkeypatch, os, "fdatasync", number)
    with pytest.raises(StorageError, match="can't write"):
        file.write([b"x"])
    with pytest.raises(StorageError, match="can't sync"):
        file.sync()
    file.close()


def test_an_error_without_a_number_keeps_its_text():
    assert str(disk_module.storage_error("write", "a", OSError("odd"))) == "can't write a: odd"


def test_a_file_where_a_folder_should_be(disk):
    disk.replace("a", b"")
    for act in (
        lambda: disk.replace("a/b", b""),
        lambda: disk.append("a/b"),
        lambda: disk.size("a/b"),
        lambda: disk.delete("a/b"),
        lambda: disk.read("."),
    ):
        with pytest.raises(StorageError):
            act()


def test_a_folder_that_cannot_be_listed(disk, monkeypatch):
    disk.replace("a/b", b"")
    refuse(monkeypatch, os, "scandir", errno.EACCES)
    with pytest.raises(StorageError, match="can't list .*no permission"):
        disk.list("a")


def test_a_full_disk_keeps_what_was_written(tmp_path):
    """The limit of a file's size stands for a full disk: writes stop half-way."""
    result = child(
        """
        import resource, sys
        from headrace.core.disk import LocalDisk
        from headrace.core.errors import StorageError
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        disk = LocalDisk(sys.argv[1])
        file = disk.append("journal")
        file.write([b"kept" * 10])
        file.sync()
        for act in (lambda: file.write([b"x" * 200_000]), lambda: disk.put_if_absent("a", b"x" * 200_000),
                    lambda: disk.replace("b", b"x" * 200_000)):
            try:
                act()
            except StorageError as e:
                print(e)
        print(disk.list(""))
        """,
        tmp_path,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert len(lines) == 4
    assert all(
        "the file-size limit of this process is reached; raise it (ulimit -f)" in line for line in lines[:3]
    )
    assert lines[3] == "['journal']"
    assert (tmp_path / "journal").read_bytes().startswith(b"kept" * 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["journal"]


def test_a_read_only_folder():
    # Not below tmp_path, which other users can't enter.
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "store"
        LocalDisk(folder).replace("kept", b"kept")
        Path(top).chmod(0o755)
        folder.chmod(0o555)
        result = child(
            """
            import os, sys
            from headrace.core.disk import LocalDisk
            from headrace.core.errors import StorageError
            if os.geteuid() == 0:  # root may write everywhere
                os.setuid(65534)
            disk = LocalDisk(sys.argv[1])
            print(bytes(disk.read("kept")))
            for act in (lambda: disk.put_if_absent("a", b""), lambda: disk.append("b"), disk.lock,
                        lambda: disk.delete("kept")):
                try:
                    act()
                except StorageError as e:
                    print(e)
            """,
            folder,
        )
        folder.chmod(0o755)
    lines = result.stdout.splitlines()
    assert lines[0] == "b'kept'", result.stderr
    assert len(lines) == 5
    assert all("no permission; check the owner of the folder" in line for line in lines[1:])


# --- one owner ---------------------------------------------------------------------------------------


def test_a_store_has_one_owner(disk):
    disk.lock()
    with pytest.raises(StorageError, match=f"is in use by process {os.getpid()}; stop it first"):
        LocalDisk(disk.root).lock()
    disk.unlock()
    disk.unlock()
    other = LocalDisk(disk.root)
    other.lock()
    other.unlock()


def test_a_lock_dies_with_its_process(disk):
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys; from headrace.core.disk import LocalDisk; LocalDisk(sys.argv[1]).lock(); print('locked', flush=True)"
            "; sys.stdin.read()",
            str(disk.root),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder, contextlib.ExitStack() as stack:
        stack.callback(holder.kill)
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StorageError, match=f"process {holder.pid}"):
            disk.lock()
        holder.kill()
        holder.wait()
        disk.lock()


def test_the_owner_of_a_lock_may_be_unknown(disk):
    disk.lock()
    (disk.root / ".lock").write_text("")
    with pytest.raises(StorageError, match="in use by process unknown"):
        LocalDisk(disk.root).lock()


def test_the_owner_clears_what_a_killed_writer_left(disk):
    disk.replace("a/b", b"whole")
    (disk.root / "a" / ".c.123.456.tmp").write_bytes(b"half")
    disk.lock()
    assert sorted(p.name for p in disk.root.rglob("*")) == [".lock", "a", "b"]


def test_a_leftover_that_cannot_be_removed_is_left(disk, monkeypatch):
    disk.replace("a", b"")
    (disk.root / ".c.1.2.tmp").mkdir()
    disk.lock()
    assert (disk.root / ".c.1.2.tmp").is_dir()
