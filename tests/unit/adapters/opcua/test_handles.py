"""Handles of a connection keep their variables while tags get other numbers."""

import numpy as np
from asyncua import ua

from headrace.adapters.opcua.handles import GONE, UNKNOWN, WAITING, Handles
from headrace.adapters.opcua.messages import from_data_values, numbered


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
