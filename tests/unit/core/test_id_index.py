import numpy as np
import pytest

from headrace.core.id_index import IdIndex


@pytest.mark.parametrize(("recent", "single"), [(4, 100), (4, 3), (1_000, 1_000), (4, 0)])
def test_the_newest_row_of_each_id_is_found(monkeypatch, recent, single):
    monkeypatch.setattr(IdIndex, "RECENT_MAX", recent)
    monkeypatch.setattr(IdIndex, "SINGLE_MAX", single)
    index, known = IdIndex(), {}
    rng = np.random.default_rng(7)
    row = 0
    for size in (0, 1, 3, 2, 9, 1, 4, 1, 6, 2, 17, 0, 3):
        ids = np.sort(rng.choice(20, size, replace=False)).astype(np.uint64)
        index.add(ids, np.arange(row, row + size))
        known.update(zip(ids.tolist(), range(row, row + size), strict=True))
        row += size
        for asked in (np.arange(25, dtype=np.uint64), rng.permutation(25).astype(np.uint64)):
            assert index.find(asked).tolist() == [known.get(i, -1) for i in asked.tolist()]
            assert [index.find_one(i) for i in asked.tolist()] == index.find(asked).tolist()
        assert len(index) == len(known)


def test_one_id_is_looked_for_in_every_run():
    """Newest first: of an id in several the newest row counts."""
    index = IdIndex()
    many = IdIndex.SINGLE_MAX + 1
    ids = np.arange(10 * many, dtype=np.uint64)
    index.add(ids, np.arange(ids.size))
    index.add(ids[:many], np.arange(many) + 10**6)
    index.add(ids[:1], np.array([2 * 10**6]))
    found = [index.find_one(one) for one in (0, 1, many - 1, many, 10 * many - 1, 10 * many, 2**64 - 1)]
    assert found == [2 * 10**6, 10**6 + 1, 10**6 + many - 1, many, 10 * many - 1, -1, -1]
