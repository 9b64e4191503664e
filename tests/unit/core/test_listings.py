"""Listings of folders: remembered while nothing changes, never older than what is there."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core import listings as module
from headrace.core.clock import NS
from headrace.core.listings import Listings


class Hands:
    """A clock moved by hand."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


@pytest.fixture
def hands():
    return Hands()


@pytest.fixture
def reads(monkeypatch):
    """Folders whose names were read."""
    found = []
    real = os.scandir

    def scandir(fd):
        found.append(os.readlink(f"/proc/self/fd/{fd}"))
        return real(fd)

    monkeypatch.setattr(module.os, "scandir", scandir)
    return found


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def settled(listings, hands, top):
    """List until the names are remembered; whatever changes the folders then gives them another time."""
    for folder, _, _ in os.walk(top):
        os.utime(folder, (0, 0))
    listings.list(top)
    hands.now += 5 * NS
    return listings.list(top)


def test_names_are_read_once_while_nothing_changes(tmp_path, hands, reads):
    put(tmp_path, "b/2", "b/1", "a", ".hidden")
    listings = Listings(hands)
    assert settled(listings, hands, str(tmp_path)) == ["a", "b/1", "b/2"]
    reads.clear()
    assert listings.list(str(tmp_path)) == ["a", "b/1", "b/2"]
    assert not reads


def test_what_changed_lately_is_read_again(tmp_path, hands, reads):
    """A file system's times have steps: a second change may leave the time of the first."""
    put(tmp_path, "a")
    listings = Listings(hands)
    for _ in range(3):
        assert listings.list(str(tmp_path)) == ["a"]
        hands.now += 1 * NS
    assert len(reads) == 3
    now = os.stat(tmp_path).st_mtime_ns
    put(tmp_path, "b")
    os.utime(tmp_path, ns=(now, now))
    assert listings.list(str(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("where", ["new", "below/new", "below/deeper/new", "other/new"])
def test_a_new_file_is_seen_wherever_it_is(tmp_path, hands, where):
    put(tmp_path, "a", "below/b", "below/deeper/c")
    listings = Listings(hands)
    before = settled(listings, hands, str(tmp_path))
    put(tmp_path, where)
    assert listings.list(str(tmp_path)) == sorted([*before, where])


def test_a_file_that_is_gone_is_seen(tmp_path, hands):
    put(tmp_path, "below/a", "below/b")
    listings = Listings(hands)
    settled(listings, hands, str(tmp_path))
    (tmp_path / "below" / "a").unlink()
    assert listings.list(str(tmp_path)) == ["below/b"]


def test_a_folder_that_comes_and_goes(tmp_path, hands, reads):
    top = tmp_path / "top"
    listings = Listings(hands)
    assert settled(listings, hands, str(top)) == []
    assert listings.list(str(top)) == []
    assert not reads
    put(top, "a")
    assert settled(listings, hands, str(top)) == ["a"]
    (top / "a").unlink()
    top.rmdir()
    assert listings.list(str(top)) == []


def test_another_folder_of_the_same_name(tmp_path, hands):
    put(tmp_path, "top/a", "other/b")
    listings = Listings(hands)
    settled(listings, hands, str(tmp_path / "top"))
    (tmp_path / "top").rename(tmp_path / "old")
    (tmp_path / "other").rename(tmp_path / "top")
    assert listings.list(str(tmp_path / "top")) == ["b"]


def test_a_folder_that_goes_while_it_is_listed(tmp_path, hands, monkeypatch):
    put(tmp_path, "a/1", "b/2")
    listings = Listings(hands)
    real = os.open

    def open_(path, flags):
        if path.endswith("/a") and (tmp_path / "a").exists():
            (tmp_path / "a" / "1").unlink()
            (tmp_path / "a").rmdir()
        return real(path, flags)

    monkeypatch.setattr(module.os, "open", open_)
    assert listings.list(str(tmp_path)) == ["b/2"]


def test_few_folders_are_remembered_of_which_each_query_asks_for_some(tmp_path, hands, reads):
    listings = Listings(hands)
    put(tmp_path, "often/a")
    often = str(tmp_path / "often")
    settled(listings, hands, often)
    for number in range(70):
        put(tmp_path, f"{number}/a")
        assert listings.list(str(tmp_path / str(number))) == ["a"]
        reads.clear()
        listings.list(often)
        assert not reads
    assert len(listings._known) == 64


def test_many_names_are_not_remembered(tmp_path, hands, reads, monkeypatch):
    monkeypatch.setattr(module, "_NAMES_MAX", 2)
    put(tmp_path, "a", "b", "c")
    listings = Listings(hands)
    settled(listings, hands, str(tmp_path))
    reads.clear()
    assert listings.list(str(tmp_path)) == ["a", "b", "c"]
    assert reads


def test_names_are_trusted_for_half_a_minute_at_most(tmp_path, hands, monkeypatch):
    """There are file systems whose folders never change their times."""
    monkeypatch.setattr(module, "_stamp", lambda fd: (0, 0, 0, 0))
    put(tmp_path, "a")
    listings = Listings(hands)
    settled(listings, hands, str(tmp_path))
    put(tmp_path, "b")
    assert listings.list(str(tmp_path)) == ["a"]
    hands.now += 30 * NS
    assert listings.list(str(tmp_path)) == ["a", "b"]


def test_names_that_took_long_to_read(tmp_path, hands, monkeypatch):
    """What changes in the last folder while another is read slowly, in the same step of the file system's times."""
    put(tmp_path, "a/1", "b/1")
    monkeypatch.setattr(module, "_stamp", lambda fd: (0, os.fstat(fd).st_ino, 0, 0))
    real = os.scandir

    def scandir(fd):
        hands.now += 4 * NS
        return real(fd)

    monkeypatch.setattr(module.os, "scandir", scandir)
    listings = Listings(hands)
    assert listings.list(str(tmp_path)) == ["a/1", "b/1"]
    assert listings.list(str(tmp_path)) == ["a/1", "b/1"]
    put(tmp_path, "b/2")
    assert listings.list(str(tmp_path)) == ["a/1", "b/1", "b/2"]


def test_errors_are_raised_and_no_folder_stays_open(tmp_path, hands):
    put(tmp_path, "file")
    listings = Listings(hands)
    n_open = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotADirectoryError):
        listings.list(str(tmp_path / "file"))
    settled(listings, hands, str(tmp_path))
    put(tmp_path, "more")
    listings.list(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == n_open


class Stamps:
    """Folders' times of change by the clock moved by hand, in steps of 2 s as FAT has them."""

    def __init__(self, hands):
        self._hands, self._changed = hands, {}

    def note(self, folder):
        self._changed[str(folder)] = self._hands.now // (2 * NS)

    def __call__(self, fd):
        return 0, 0, self._changed.get(os.readlink(f"/proc/self/fd/{fd}"), -1), 0


@given(st.lists(st.tuples(st.sampled_from("+-l"), st.integers(0, 5), st.integers(0, 4)), max_size=40))
@settings(max_examples=100, deadline=None)
def test_it_says_what_is_there(tmp_path_factory, steps):
    """Whatever is added, removed and listed, however much time passes between, and however coarse the folders' times are."""
    folder = tmp_path_factory.mktemp("listed").resolve()
    hands = Hands()
    stamps, listings = Stamps(hands), Listings(hands)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_stamp", stamps)
        for what, number, seconds in steps:
            path = folder / f"{number % 2}" / f"{number}"
            hands.now += seconds * NS
            if what == "+":
                if not path.parent.exists():
                    stamps.note(folder)
                put(folder, f"{number % 2}/{number}")
                stamps.note(path.parent)
            elif what == "-" and path.exists():
                path.unlink()
                stamps.note(path.parent)
            found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            assert listings.list(str(folder)) == found
