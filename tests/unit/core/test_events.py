import json

import pytest

from headrace.core.events import MAX_RAW_BYTES, Event, Reject, RejectCode


def test_a_reject_survives_json():
    reject = Reject(RejectCode.BAD_TIME, "ovens", "plant/a", "expected ms", b"\x00\xff", 7, 3)
    assert Reject.from_dict(json.loads(json.dumps(reject.to_dict()))) == reject


def test_a_reject_keeps_the_first_bytes_only():
    data = Reject(RejectCode.TOO_LARGE, "ovens", "plant/a", "", bytes(2 * MAX_RAW_BYTES)).to_dict()
    assert len(Reject.from_dict(data).raw) == MAX_RAW_BYTES


def test_an_event_has_fields_of_its_own():
    first, second = Event(1, "adapter.lost", "gone"), Event(2, "adapter.back", "back")
    first.fields["device"] = "a"
    assert second.fields == {}


def test_what_is_no_reject_is_told():
    data = Reject(RejectCode.TOO_LARGE, "ovens", "plant/a", "").to_dict()
    for key, value in (("source", None), ("n_samples", "7"), ("arrival_ns", 1.5), ("detail", 3)):
        with pytest.raises(TypeError, match="texts and whole numbers"):
            Reject.from_dict({**data, key: value})
