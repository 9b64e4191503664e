"""What people see of adapters beyond the table of devices."""

import click

from headrace.cli.adapters import _problems
from headrace.cli.rejects import dump


def test_signals_with_problems_are_listed():
    devices = [
        {"path": "a/b/one", "problems": {"t": "exception 2 (illegal data address)"}},
        {"path": "a/b/two", "problems": {}},
        {"path": "a/b/old"},
    ]
    head, row = (click.unstyle(line) for line in _problems(devices).splitlines())
    assert head.split() == ["device", "signal", "problem"]
    assert row.split(maxsplit=2) == ["a/b/one", "t", "exception 2 (illegal data address)"]
    assert _problems(devices[1:]) == ""


def test_of_many_bytes_the_beginning_is_shown():
    whole, cut = dump(bytes(4_096)).splitlines(), dump(bytes(5_000)).splitlines()
    assert len(whole) == 256
    assert cut[:256] == whole
    assert cut[256:] == ["... 904 bytes more; --raw writes all of them"]
    assert dump(b"") == "(no bytes were kept)"
