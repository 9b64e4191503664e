"""Which offsets may be committed, against a model; partitions that come and go."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from headrace.adapters.kafka.ledger import NO_OFFSET, OffsetLedger, PartitionProgress

A, B = ("t", 0), ("t", 1)


def ledger_of(*places):
    one = OffsetLedger()
    one.assign(places)
    return one


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 5)), min_size=1, max_size=20), st.randoms())
def test_what_is_due_is_the_durable_part_without_gaps(slices, random):
    ledger, next_offset, spans = ledger_of(A, B), {A: 0, B: 0}, []
    for place, n in slices:
        offsets = range(next_offset[place], next_offset[place] + n)
        next_offset[place] += n
        spans.append((place, next_offset[place], ledger.take({place: offsets})[place]))
    landed, due = set(), {}
    for i in random.sample(range(len(spans)), len(spans)):
        ledger.land([spans[i][2]])
        landed.add(i)
        due |= ledger.due()
        for place in (A, B):
            mine = [k for k in range(len(spans)) if spans[k][0] == place]
            prefix = [k for k in mine if all(j in landed for j in mine if j <= k)]
            assert due.get(place) == (spans[prefix[-1]][1] if prefix else None)
    assert ledger.due() == {}
    assert ledger.missed(9) == {}, "there were no gaps"


def test_a_commit_that_fails_is_due_again():
    ledger = ledger_of(A)
    ledger.land(ledger.take({A: [9]}).values())
    assert ledger.due() == {A: 10}
    assert ledger.due() == {}
    ledger.commit_done(A, 10, is_good=False)
    assert ledger.due() == {A: 10}
    ledger.commit_done(A, 10, is_good=True)
    assert ledger.due() == {}
    assert ledger.progress()[A].committed == 10
    ledger.commit_done(B, 1, is_good=True)


def test_what_goes_with_a_partition_is_all_that_is_not_known_to_be_committed():
    ledger = ledger_of(A, B)
    ledger.land(ledger.take({A: [9], B: [9]}).values())
    ledger.take({A: [10]})
    assert ledger.due() == {A: 10, B: 10}
    ledger.commit_done(B, 10, is_good=True)
    assert ledger.revoke([A, B, ("x", 0)]) == {A: 10}, "a commit under way may be refused; 10 is not durable"
    assert ledger.revoke([A]) == {}
    ledger.assign([A], {A: 7})
    assert ledger.revoke([A]) == {}, "the group is there"


def test_nothing_is_committed_for_a_partition_that_was_lost():
    ledger = ledger_of(A, B)
    before = ledger.take({A: [9], B: [9]})
    ledger.revoke([A])
    ledger.land(before.values())
    assert ledger.due() == {B: 10}
    assert ledger.take({A: [12]}) == {}
    ledger.assign([A])
    ledger.land([before[A]])
    assert ledger.due() == {}, "an ack of the time before says nothing of now"
    ledger.set_end(A, 15)
    ledger.land(ledger.take({A: [11]}).values())
    assert (ledger.due(), ledger.progress()[A].lag) == ({A: 12}, 3)
    ledger.set_end(("x", 0), 1)
    assert list(ledger.progress()) == [A, B]


def test_lag_is_what_is_known():
    assert PartitionProgress().lag == 0
    assert PartitionProgress(end=5).lag == 5
    assert PartitionProgress(end=5, durable=7).lag == 0
    assert NO_OFFSET == -1


def test_waiting_for_what_was_handed_on_ends_when_it_lands_or_in_time():
    ledger = ledger_of(A)
    spans = ledger.take({A: [9]})
    ledger.settle([A, B], 0.01)
    assert ledger.due() == {}
    landing = threading.Timer(0.05, ledger.land, [spans.values()])
    landing.start()
    ledger.settle([A], 20.0)
    assert ledger.due() == {A: 10}
    landing.join()


def test_offsets_that_did_not_come_are_known_until_they_are_explained():
    ledger = OffsetLedger()
    ledger.assign([A, B], {A: 5})
    ledger.take({A: [5, 6], B: [100]})
    assert ledger.missed(9) == {}, "all came; of the other it is not known where it begins"
    ledger.take({A: [6, 7]})
    assert ledger.missed(9) == {}, "it came again"
    ledger.take({A: [8, 9, 12, 15], B: [104]})
    ledger.take({A: [30]})
    assert ledger.missed(9) == {A: 10, B: 101}, "the first of each"
    assert ledger.missed(1) == {A: 10}
    ledger.explain(A, is_gap=True)
    ledger.explain(("x", 0), is_gap=False)
    assert (ledger.missed(9), ledger.n_gaps) == ({B: 101}, 1)
    ledger.take({A: [32]})
    assert ledger.missed(1) == {A: 31}


def test_where_the_group_is_counts_before_anything_came():
    ledger = OffsetLedger()
    ledger.assign([A], {A: 90})
    ledger.set_end(A, 100)
    assert (ledger.progress()[A].lag, ledger.due()) == (10, {})
