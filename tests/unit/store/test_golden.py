"""A store of format version 1, as it was written: every later release must read it."""

from pathlib import Path

from headrace.core.clock import VirtualClock
from headrace.store.query import Store
from headrace.store.segment import verify_segment

GOLDEN = Path(__file__).parent / "golden"
DAY = 86_400 * 1_000_000_000
START = 20_000 * DAY


def test_a_store_of_version_1_is_read():
    store = Store.open(GOLDEN / "store-v1", None, VirtualClock())
    answer = store.query("**", START, START + 2 * DAY)
    assert answer.missing == ()
    assert (answer.sources["warm_rows"], answer.sources["hot_rows"]) == (8, 7)
    assert answer.to_csv(labels=True) == (GOLDEN / "store-v1.csv").read_bytes()


def test_its_segments_are_sound():
    store = Store.open(GOLDEN / "store-v1", None, VirtualClock())
    for source in store.view.sources(START, START + 2 * DAY):
        assert verify_segment(store.disk, source.info) == ""
