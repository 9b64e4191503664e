"""What a run will do to hot days, said beforehand: it must be what the run then does."""

import json

import numpy as np
import pytest
from tests.unit.store.test_ageing import DAY, FIRST, HOUR, Line, come_late, start

from headrace.cli.tiers import _due
from headrace.runtime.tiers_report import TiersView
from headrace.store.holdings import Holdings

SHORT = {
    "match": "**",
    "after": {"cold": "10d", "rollups": "20d", "delete": "30d"},
    "bound": {"range": 0.005},
}
A_DAY = 60 * 5  # samples


@pytest.fixture
def line():
    return Line()


def hot_days(line, n_days=70, after_days=0, **sections):
    """A rig that has had no run yet, some days after the last of its hot days."""
    rig = start(line, **(sections or {"default": SHORT}))
    line.feed(rig, FIRST, n_days)
    rig.clock.set_ns((FIRST + n_days + after_days) * DAY + 2 * HOUR)
    return rig


def foretell(rig, **how):
    view = TiersView(rig.store, rig.rules, rig.clock, Holdings(rig.store, rig.rules), rig.policy)
    facts = view.status(**how)
    return json.loads(json.dumps(facts))


def then(facts):
    return {(one["rule"], one["stage"]): (one["days"], one["samples"]) for one in facts["compaction"]["then"]}


@pytest.mark.parametrize("after_days", [0, 3, 11, 25, 45])
def test_what_is_said_of_hot_days_is_what_a_run_does(line, after_days):
    rig = hot_days(line, after_days=after_days)
    size = sum(info.size_bytes for info in rig.commits.view.segments)
    facts = foretell(rig)
    found = facts["compaction"]
    assert (found["days"], found["samples"], found["bytes"], found["problems"]) == (70, 70 * A_DAY, size, [])
    done = rig.compactor.run_once()
    assert (done.problems, done.n_partitions, done.n_aged) == ([], 70, len(facts["due"]))
    said = then(facts)
    deleted, rolled = (said.get(("default", stage), (0, 0)) for stage in ("deleted", "only rollups"))
    assert deleted[1] + rolled[1] == done.n_dropped
    assert deleted[1] == deleted[0] * A_DAY
    assert done.n_dropped > 0
    cold = {f.name for one in rig.store.refresh().cold.values() for f in one.files}
    assert (("default", "cold") in said) == bool(cold)
    again = foretell(rig)
    assert (again["compaction"]["days"], again["compaction"]["then"], again["due"]) == (0, [], [])
    assert _due(again) == "Nothing is due."


def test_days_are_counted_by_what_becomes_of_their_partition(line):
    facts = foretell(hot_days(line, after_days=0))
    # 30 days from FIRST on ended 40 days ago, the next 30 did 10 days ago; days of the bucket that lasts are too young.
    assert then(facts) == {("default", "cold"): (30, 30 * A_DAY), ("default", "deleted"): (30, 30 * A_DAY)}
    assert [one["days_to_compact"] for one in facts["due"]] == [30, 30]
    assert [one["samples"] for one in facts["due"]] == [30 * A_DAY] * 2
    assert not any("saves" in one for one in facts["due"])
    text = _due(facts)
    assert "To compact: 70 days from 2024-10-14 on, 21,000 samples, " in text
    assert "what that saves is not estimated" in text
    assert (
        "default: of the 70 days that are compacted first, 30 lose their 9,000 samples then: older than 30d"
        in text
    )
    assert "default: of the 70 days that are compacted first, 30 get cold then" in text


def test_holds_and_rules_that_match_nothing_hot_are_told_apart(line):
    hold = {"match": "**/temp", "hold": {"until": "2099-12-31"}}
    other = SHORT | {"match": "**/nowhere"}
    facts = foretell(hot_days(line, default=SHORT, claim=hold, other=other))
    # The held sensor gets cold where the others' samples are dropped.
    assert then(facts) == {
        ("default", "cold"): (60, 30 * A_DAY + 30 * 60),
        ("default", "deleted"): (30, 30 * A_DAY - 30 * 60),
    }


def test_late_data_of_a_cold_bucket_are_compacted_and_stay(line):
    rig = hot_days(line)
    assert rig.compactor.run_once().problems == []
    come_late(rig, line, (FIRST + 40) * DAY + 20 * HOUR)
    rig.clock.advance(2 * 3_600)
    facts = foretell(rig)
    assert (facts["compaction"]["days"], facts["due"], then(facts)) == (1, [], {})
    done = rig.compactor.run_once()
    assert (done.n_partitions, done.n_aged, done.n_dropped) == (1, 0, 0)


def test_a_day_that_lasts_does_not_wait_and_compacted_partitions_are_still_tried(line):
    rig = hot_days(line, 30, default=SHORT | {"after": {"cold": "10d"}})
    assert rig.compactor.run_once().problems == []
    rig.clock.set_ns((FIRST + 41) * DAY + 9 * HOUR)
    line.feed(rig, FIRST + 41)
    facts = foretell(rig)
    assert facts["compaction"]["days"] == 0
    (due,) = facts["due"]
    assert (due["samples"], "saves" in due, "days_to_compact" in due) == (30 * A_DAY, True, False)
    assert "saves" not in foretell(rig, tries=False)["due"][0]


def test_a_hot_segment_that_is_damaged_is_told(line):
    rig = hot_days(line)
    (info,) = rig.commits.view.segments
    rig.disk.flip_bit(info.name, -3)
    facts = foretell(rig)
    assert (facts["compaction"]["days"], facts["compaction"]["samples"]) == (70, 0)
    assert info.name in facts["compaction"]["problems"][0]


def test_a_sample_of_each_day_has_its_share_of_a_segment(line):
    rig = hot_days(line, 3, after_days=60)
    size = sum(info.size_bytes for info in rig.commits.view.segments)
    facts = foretell(rig)
    assert abs(sum(one["bytes"] for one in facts["due"]) - size) <= 1
    assert np.sum([one["days_to_compact"] for one in facts["due"]]) == 3
