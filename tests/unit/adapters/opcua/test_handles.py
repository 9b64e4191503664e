"""Handles of a connection keep their variables while tags get other numbers."""

from datetime import UTC, datetime

import numpy as np
from asyncua import ua

from headrace.adapters.opcua.handles import GONE, UNKNOWN, WAITING, Handles, Renewed
from headrace.adapters.opcua.messages import from_data_values, numbered
from headrace.core.clock import NO_TIME, NS


def values(*handles):
    return numbered(from_data_values([ua.DataValue(ua.Variant(float(h))) for h in handles]), handles)


def test_handles_are_the_tags_until_they_change():
    handles = Handles([4, 2, 3])
    some = values(2, 4)
    assert handles.are_tags
    assert handles.take(some) == (some, None)
    assert handles.renumber(np.array([0, 1, 2, 3, 4])) == []
    assert handles.are_tags, "the same numbers again"
    assert handles.renumber(np.array([0, 1, GONE, 2, 3])) == [2]
    given = handles.give(2)
    assert list(given) == [5, 6], "no handle is given twice"
    assert handles.tags([2, 3, 4, 5, 6, 9]).tolist() == [GONE, 2, 3, WAITING, WAITING, UNKNOWN]
    now, waiting = handles.take(values(3, 2, 6, 4, 9))
    assert now.columns.tag.tolist() == [2, 3, UNKNOWN]
    assert now.columns.bits.view(np.float64).tolist() == [3.0, 4.0, 9.0]
    assert waiting.columns.tag.tolist() == [6]
    handles.settle({5: 7, 6: GONE})
    assert (handles.tag_of(5), handles.tag_of(6)) == (7, GONE)
    assert handles.present == ([3, 4, 5], [2, 3, 7])
    now, waiting = handles.take(values(3, 5))
    assert (now.columns.tag.tolist(), waiting) == ([2, 7], None)


def test_no_handles():
    handles = Handles([])
    assert handles.tags([3]).tolist() == [UNKNOWN]
    assert list(handles.give(1)) == [0]
    assert len(handles.take(values(0))[0]) == 0


def at_times(*rows):
    """Values by (handle, source's time in s)."""
    given = [
        ua.DataValue(ua.Variant(1.0), SourceTimestamp=None if s is None else datetime.fromtimestamp(s, UTC))
        for _, s in rows
    ]
    return numbered(from_data_values(given), [handle for handle, _ in rows])


def told(values):
    """(handle, time in s) of each."""
    columns = values.columns
    times = [None if ns == NO_TIME else ns / NS for ns in columns.source_ns.tolist()]
    return [*zip(columns.tag.tolist(), times, strict=True)]


def test_a_new_item_tells_nothing_twice():
    renewed = Renewed()
    assert told(renewed.unheard(at_times((7, 1)), 0)) == [(7, 1)]
    renewed.begin([9], np.array([20 * NS]), 100)
    renewed.begin([7], np.array([10 * NS]), 50)
    some = at_times((7, 8), (9, 20), (3, 1), (7, 9), (9, 2), (7, None))
    assert told(renewed.unheard(some, 60)) == [(3, 1), (9, 2), (7, None)], (
        "9 has told all, and its clock is back"
    )
    some = at_times((7, 10), (7, 10), (9, 3), (7, 4))
    assert told(renewed.unheard(some, 60)) == [(7, 10), (9, 3), (7, 4)]
    assert told(renewed.unheard(at_times((7, 1), (9, 1)), 60)) == [(7, 1), (9, 1)], "both have told all"


def test_what_comes_late_or_is_later_is_new():
    renewed = Renewed()
    renewed.begin([1, 2, 3], np.array([10 * NS] * 3), 50)
    assert told(renewed.unheard(at_times((1, 11), (1, 5), (2, 5)), 50)) == [(1, 11), (1, 5)]
    assert told(renewed.unheard(at_times((2, 6)), 51)) == [(2, 6)], "by now it would have told"
    assert told(renewed.unheard(at_times((3, 6)), 40)) == [(3, 6)]
