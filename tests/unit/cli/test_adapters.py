"""What people see of adapters beyond the table of devices."""

import click

from headrace.cli.adapters import _problems


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
