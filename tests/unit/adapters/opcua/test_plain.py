"""What the kernel files is what would have been filed column by column."""

from datetime import timedelta
from random import Random

import numpy as np
import pytest
from asyncua import ua
from tests.integration.opcua_life import samples
from tests.unit.adapters.opcua.desk import NOW, NOW_NS, Desk, T, plan, signal

from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.messages import from_data_values, numbered
from headrace.core.frames import Shape
from headrace.testing.adapters import RecordingSink

KINDS = ("Double", "Float", "Boolean", "Int16", "Double", "UInt64")


def desk(**more):
    signals = [signal(f"s{i}") for i in range(len(KINDS))]
    made = Desk(plan("l/d", *signals), plan("l/e", *signals), plan("l/f", *signals), **more)
    made.file(*[(tag, 1, KINDS[tag % len(KINDS)], 0) for tag in range(3 * len(KINDS))])
    return made


def of(random, tag, second):
    """A value as a server would give it: mostly new and good."""
    kind = T[KINDS[tag % len(KINDS)]]
    value = random.choice([0, 1, random.randrange(200)])
    source = random.choice([second, second, second, second - 1, None, 9**6])
    status = random.choice([0] * 40 + [0x80310000])
    return ua.DataValue(
        ua.Variant(bool(value) if kind is T.Boolean else value, kind), ua.StatusCode(status),
        None if source is None else NOW + timedelta(seconds=source), random.choice([NOW, NOW, None]),
    )  # fmt: skip


def told(made, batches):
    sink = RecordingSink()
    sink.directory, sink.batches = made.directory, batches
    for batch in batches:
        assert (batch.arrival_ns, batch.origin) == (NOW_NS, "x")
    return sorted(samples(sink))


@pytest.mark.parametrize("time", ["auto", "source", "server", "ingest"])
def test_the_kernel_files_as_the_columns_do(time):
    OpcuaAdapter.warm()
    quick, slow = desk(time=time), desk(time=time)
    slow.filing._plain = lambda values, arrival_ns: None
    random, n_quick = Random(7), 0
    plain = quick.filing._plain

    def counted(values, arrival_ns):
        nonlocal n_quick
        found = plain(values, arrival_ns)
        n_quick += found is not None
        return found

    quick.filing._plain = counted
    for second in range(1, 60):
        tags = random.sample(range(18), random.choice([1, 3, 18])) * random.choice([1, 1, 1, 2])
        if random.random() < 0.5:
            tags.sort()
        values = numbered(from_data_values([of(random, tag, second) for tag in tags]), tags)
        found, wanted = (one.filing.file(values, NOW_NS) for one in (quick, slow))
        assert told(quick, found.batches) == told(slow, wanted.batches)
        assert (found.n_repeats, sorted(found.good)) == (wanted.n_repeats, sorted(wanted.good))
        assert len(found.rejects) == len(wanted.rejects)
        assert quick.tags.problem == slow.tags.problem
        for mine, others in zip(quick.tags.sensors, slow.tags.sensors, strict=True):
            assert np.array_equal(mine, others)
    assert n_quick > 15


def test_where_some_frames_are_whole_they_are_dense():
    signals = signal("a"), signal("b")
    made = Desk(plan("l/d", *signals), plan("l/e", *signals), plan("l/f", *signals))
    made.file(*[(tag, 1.0, "Double", 0) for tag in range(6)])
    for tags, shapes in (
        ((5, 1, 3, 2, 4, 0), [Shape.DENSE]), ((0, 2, 3), [Shape.DENSE, Shape.SPARSE]), ((4, 0), [Shape.SPARSE]),
    ):  # fmt: skip
        out = made.file(*[(tag, tag + len(tags) / 10, "Double", 1) for tag in tags])
        assert [batch.shape for batch in out.batches] == shapes
    made.tags.problem[2] = "Bad"
    out = made.file((2, 9.0, "Double", 2), (3, 9.0, "Double", 3))
    (batch,) = out.batches
    assert (batch.shape, (batch.value_ts_ns - NOW_NS).tolist()) == (Shape.SPARSE, [2 * 10**9, 3 * 10**9])
    assert made.tags.problem == {}, "a good value says that all is well"
