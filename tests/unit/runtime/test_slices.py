"""Answers slice by slice are the whole answer, whatever the slices and wherever they are continued."""

import numpy as np
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.errors import ConfigError, NotFound
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.runtime import slices
from headrace.runtime.pipe import Pipe
from headrace.runtime.reader import open_store
from headrace.runtime.slices import AnswerPlace, Question, SlicedAnswer
from headrace.runtime.tree import SensorTree

T0 = 1_767_225_600 * NS
DEVICE = Layout("u16", (Column("temperature", scale=0.5), Column("speed"), Column("zz")))
LONE = Layout("f64", (Column(""),))
PATHS = ["p/l1/o1", "p/l1/o10", "p/l1", "p/l2/o1", "p/l2/o1/motor", "q/l1/o1"]
LONES = ["p/l3/flow", "p/l3/level", "lone"]
N = 40


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A store, half of it committed, half in the journal; its reader and tree."""
    folder = tmp_path_factory.mktemp("slices") / "store"
    clock = VirtualClock(T0)
    pipe = Pipe(folder, [], clock)
    devices = pipe.directory.define_many(PATHS, DEVICE)
    lones = pipe.directory.define_many(LONES, LONE)
    for n in range(N):
        ts = clock.now_ns()
        values = np.arange(len(devices) * 3, dtype=np.uint16).reshape(-1, 3) + n
        pipe.offer(FrameBatch.dense(devices, np.full(len(devices), ts), values, arrival_ns=ts, origin="t"))
        some = np.arange(len(lones), dtype=np.float64).reshape(-1, 1) + n
        pipe.offer(FrameBatch.dense(lones, np.full(len(lones), ts), some, arrival_ns=ts, origin="t"))
        clock.advance(1.0)
        pipe.tick()
        if n == N // 2:
            pipe.drain()
    pipe._flush()
    pipe._writer.wait(pipe.host.journal.last_seq, 10.0)
    reader = open_store(folder)
    yield reader, SensorTree(reader.directory)
    pipe.close()


QUESTIONS = [
    Question("**", T0, T0 + N * NS),
    Question("p/l1/**", T0 + 3 * NS, T0 + 30 * NS),
    Question("**", T0, T0 + N * NS, 7 * NS, ("mean", "max")),
    Question("**/speed", T0, T0 + N * NS, None, ("count",)),
    Question("lone", T0, T0 + N * NS),
]


def key(path):
    parent, _, name = path.rpartition("/")
    return parent + "/", name


def rows_of(result):
    return [tuple(row.values()) for row in result.to_rows()]


def whole(reader, asked):
    """The answer of the store itself, in the order of slices."""
    result = reader.query(
        asked.pattern,
        from_=str(np.datetime64(asked.start_ns, "ns")),
        to=str(np.datetime64(asked.end_ns, "ns")),
        every=asked.every_ns and f"{asked.every_ns}ns",
        agg=asked.agg,
    )
    return sorted(rows_of(result), key=lambda row: (*key(row[0]), row[1]))


@pytest.mark.parametrize("by_shard_above", [0, 1_000])
@pytest.mark.parametrize("slice_rows", [1, 7, 50, 10_000])
@pytest.mark.parametrize("asked", QUESTIONS, ids=str)
def test_slices_are_the_whole_answer(opened, monkeypatch, asked, slice_rows, by_shard_above):
    monkeypatch.setattr(slices, "BY_SHARD_ABOVE", by_shard_above)
    reader, tree = opened
    answer = SlicedAnswer(reader, tree, asked, None, slice_rows)
    found = [row for result in answer for row in rows_of(result)]
    want = whole(reader, asked)
    if by_shard_above:
        assert found == want
    else:
        assert sorted(found) == sorted(want)
    assert answer.missing == []
    assert answer.sources["journal_frames"] > 0


@pytest.mark.parametrize("by_shard_above", [0, 1_000])
@pytest.mark.parametrize("limit", [1, 13, 64])
@pytest.mark.parametrize("asked", QUESTIONS, ids=str)
def test_an_answer_is_continued_behind_any_row(opened, monkeypatch, asked, limit, by_shard_above):
    monkeypatch.setattr(slices, "BY_SHARD_ABOVE", by_shard_above)
    reader, tree = opened
    asked = Question(asked.pattern, asked.start_ns, asked.start_ns + 12 * NS, asked.every_ns, asked.agg)
    found, after = [], None
    for _ in range(1_000):
        page = []
        answer = SlicedAnswer(reader, tree, asked, after, 2 * limit)
        for result in answer:
            page += rows_of(result)
            if len(page) >= limit:
                break
        page = page[:limit]
        if not page:
            break
        found += page
        after = AnswerPlace.from_text(answer.place(page[-1][0], page[-1][1]).to_text())
        assert after.question == asked
    assert sorted(found) == sorted(whole(reader, asked))
    assert len(found) == len(set(found))


def test_wrong_questions(opened):
    reader, tree = opened
    with pytest.raises(
        NotFound, match="no sensor matches 'p/l1/o1/temp'; the nearest path is 'p/l1/o1/temperature'"
    ):
        SlicedAnswer(reader, tree, Question("p/l1/o1/temp", 0, 1))
    with pytest.raises(ConfigError, match="unknown aggregate"):
        list(SlicedAnswer(reader, tree, Question("**", 0, 1, 1, ("men",))))


@pytest.mark.parametrize(
    "text", ["", "x", "bm90IGpzb24", "e30", "W10", "eyJxdWVzdGlvbiI6IHt9fQ", "\xff", "[" * 9_000]
)
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(ConfigError, match="the cursor is none that was given out"):
        AnswerPlace.from_text(text)
