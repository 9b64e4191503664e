"""JSON of known shape: what the scanner reads is what msgspec's path reads, sample by sample and reject by reject."""

import collections
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.mutations import any_of
from tests.property.test_payloads import rows_of

from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.json import FieldsDecoder
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.sensors import SensorDirectory

ARRIVAL_NS = 1_767_225_600_000_000_000
KEYS = st.sampled_from(["a", "b", "temp", "rpm", "é", "x y"])
NUMBERS = st.one_of(
    st.integers(-9, 9), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-1000, 1000, places=3).map(float), st.sampled_from([0, -0.0, 1e300, 5e-324, 2**53, 2**53 + 1, 1e22, 1e23]),
)  # fmt: skip
SCALARS = st.one_of(
    NUMBERS, NUMBERS, st.booleans(), st.none(), st.text("abc é\"\\\n", max_size=4), st.sampled_from(["on", "x" * 1_100])
)  # fmt: skip
TIMES = st.one_of(
    st.integers(-(10**18), 4 * 10**18), st.floats(-1e11, 1e11), st.integers(0, 4 * 10**9), st.integers(10**11, 10**14),
    st.datetimes().map(lambda t: t.isoformat() + "Z"), st.datetimes().map(lambda t: t.isoformat() + "+01:30"),
    st.sampled_from(["2024-02-29T23:59:59Z", "2023-02-29T00:00:00Z", "2026-01-01 00:00:60,5-00:00", "2026-01-01T00:00", "x", None, True]),
)  # fmt: skip


@st.composite
def objects(draw):
    """An object, some of whose members are objects; the time among them."""
    out = {}
    if draw(st.integers(0, 3)):
        out["ts"] = draw(TIMES)
    for key in draw(st.lists(KEYS, max_size=4, unique=True)):
        out[key] = draw(SCALARS)
    if draw(st.integers(0, 3)) == 0:
        out["motor"] = draw(st.dictionaries(KEYS, SCALARS, max_size=2))
    return out


@st.composite
def tables(draw):
    n = draw(st.integers(0, 4))
    out = {"ts": draw(st.lists(st.integers(0, 4 * 10**9) | TIMES, min_size=n, max_size=n))}
    for key in draw(st.lists(KEYS, max_size=3, unique=True)):
        some = draw(st.sampled_from([NUMBERS, NUMBERS, SCALARS]))
        out[key] = draw(st.lists(some, min_size=n, max_size=n) | SCALARS | st.just([1]))
    return out


ROWS = objects() | st.lists(objects(), max_size=4) | tables()
INDENTS = st.sampled_from([None, 0, 2])


@st.composite
def documents(draw, root):
    node = draw(ROWS)
    if root:
        inner = {root[-1]: node, **draw(st.dictionaries(KEYS, SCALARS, max_size=2))}
        node = {root[0]: inner} if len(root) == 2 else inner
        if draw(st.booleans()):
            node = {"ts": draw(TIMES), **node} if draw(st.booleans()) else {**node, "ts": draw(TIMES)}
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), None]))
    return json.dumps(
        node, indent=draw(INDENTS), ensure_ascii=draw(st.booleans()), separators=separators
    ).encode()


class Both:
    """The same rule twice: with the scanner, and by msgspec alone."""

    def __init__(self, **rule):
        self.routers, self.directories = [], []
        for scans in (True, False):
            directory = SensorDirectory()
            rules = compile_rules(
                {"p/{device}": RuleSettings(path="l/{device}/{key}", **rule)}, (), "Europe/Madrid", "t"
            )
            if not scans:
                rules[0].decoder._shapes = None
            self.routers.append(MessageRouter("x", rules, DeviceGroups(directory)))
            self.directories.append(directory)

    def check(self, payloads, n_devices=3):
        """Both read the same from messages of some devices; how many the scanner read."""
        messages = [
            TopicMessage(f"p/d{i % n_devices}", one, ARRIVAL_NS + i // 2) for i, one in enumerate(payloads)
        ]
        found = []
        n_read = FieldsDecoder.read
        n_left = 0

        def counted(*arguments):
            nonlocal n_left
            n_left += 1
            return n_read(*arguments)

        for router, directory in zip(self.routers, self.directories, strict=True):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(FieldsDecoder, "read", counted)
                out = router.decode(messages, ARRIVAL_NS)
            assert all(reject.code != "internal" for reject in out.rejects), out.rejects
            rows = sorted((key, ts, repr(value)) for key, ts, value in rows_of(directory, out.batches))
            refused = collections.Counter()
            for reject in out.rejects:
                refused[reject.code, reject.raw] += reject.n_samples
            found.append(
                (
                    rows,
                    refused,
                    {
                        directory.sensor_path(int(s), c)
                        for b in out.batches
                        for s in b.slot
                        for c in range(directory.width[s])
                    },
                )
            )
        assert found[0] == found[1]
        return 2 * len(messages) - n_left


@pytest.mark.parametrize(
    "rule",
    [
        {"time": "ts"}, {}, {"time": "ts", "root": "data"}, {"root": "data.rows", "time": "ts"}, {"time": "motor.a"},
        {"time": "ts", "time_unit": "ms", "types": {"a": "i64", "temp": "f64"}}, {"time": "ts", "root": "data", "max_keys": 2},
    ],
    ids=str,
)  # fmt: skip
@settings(max_examples=12)
@given(st.data())
def test_the_scanner_reads_what_the_reference_reads(rule, data):
    root = tuple(rule["root"].split(".")) if "root" in rule else ()
    payloads = data.draw(st.lists(documents(root), min_size=1, max_size=6))
    both = Both(**rule)
    for _ in range(3):
        both.check(payloads)


GOOD = [
    b'{"ts": 1795446000.5, "t": 181.2, "on": true, "s": "run", "m": {"rpm": 1480, "n": null}}',
    b'[{"ts": 1, "a": 1}, {"ts": "2026-11-23T15:06:00.5+01:00", "a": 2.5}]', b'{"ts":[1,2,3],"a":[1,2.5,-3e2]}',
]  # fmt: skip


@settings(max_examples=40)
@given(st.lists(any_of(*GOOD), min_size=1, max_size=4))
def test_hostile_messages_are_read_alike(payloads):
    both = Both(time="ts")
    for _ in range(3):
        both.check(GOOD)
    both.check([*payloads, *GOOD])


@pytest.mark.parametrize(
    ("rule", "payload"),
    [
        ({"time": "ts"}, b'{"ts": 1795446000, "t": %d.25, "on": true, "s": "run", "m": {"rpm": 1480, "n": null}}'),
        ({"time": "ts"}, b'[{"ts": "2026-11-23T15:06:%d.5+01:00", "a": 1}, {"ts": "2026-11-23T15:06:00Z", "a": -0}]'),
        ({"time": "ts"}, b' {"ts":[1,2,3], "a" : [ 1 ,2.5,%d ] } '), ({}, b'{"a": %d}'),
        ({"time": "ts", "root": "d.rows"}, b'{"id": "x", "n": 1, "q": null, "d": {"rows": [{"a": %d}], "k": true}, "ts": 1795446000.25}'),
        ({"time": "ts", "root": "rows"}, b'{"ts": "2026-11-23T15:06:00Z", "rows": {"a": %d}, "k": false}'),
    ],
    ids=str,
)  # fmt: skip
def test_what_comes_again_and_again_is_scanned(rule, payload):
    both = Both(**rule)
    for _ in range(2):
        both.check([payload % n for n in range(10, 16)])
    assert both.check([payload % n for n in range(20, 26)]) == 6
