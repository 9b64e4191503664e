"""Line protocol in messages: paths, times, rejects; many messages together are as each alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.adapters.payloads import line as line_module
from headrace.adapters.payloads.base import RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.router import MessageRouter, compile_rules
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.sensors import SensorDirectory
from headrace.testing.engines import flat


class Bench:
    """A router with one rule for line protocol."""

    def __init__(self, topic="tele/{area}", path="leon/{area}/{host}/{measurement}/{key}", **rule):
        self.directory = SensorDirectory()
        rules = compile_rules({topic: RuleSettings(path=path, values="line", **rule)}, (), "UTC", "t")
        self.router = MessageRouter("x", rules, DeviceGroups(self.directory))

    def feed(self, *payloads, topic="tele/a", time_ns=NO_TIME, together=True):
        """Samples in order, and rejects; messages arrive at 100, 200, ..."""
        messages = [
            TopicMessage(topic, payload, 100 * i, time_ns, None, (0, i))
            for i, payload in enumerate(payloads, 1)
        ]
        samples, rejects = [], []
        for part in [messages] if together else [[m] for m in messages]:
            out = self.router.decode(part, 7)
            for batch in out.batches:
                batch.check_columns()
                assert (batch.arrival_ns, batch.origin) == (7, "x")
                for slot, column, ts_ns, kept in flat(batch):
                    value = batch.dictionary[kept.value] if batch.dictionary else kept.value
                    samples.append((self.directory.sensor_path(slot, column), ts_ns, value))
            rejects += out.rejects
        return samples, rejects


def test_topic_and_tags_give_the_path():
    samples, rejects = Bench().feed(b"cpu,host=h1 a=1.5 5\ncpu,host=h1,cpu=c0 a=2i 6", b"cpu a=t 7")
    assert sorted(samples) == [
        ("leon/a/h1/cpu/a", 5, 1.5), ("leon/a/h1/cpu;cpu=c0/a", 6, 2), ("leon/a/unknown/cpu/a", 7, True),
    ]  # fmt: skip
    assert rejects == []
    bench = Bench(topic="tele/{measurement}", path="leon/{measurement}/{host}/{key}", time_unit="s")
    assert bench.feed(b"m,host=h a=1 5", topic="tele/cpu")[0] == [("leon/cpu/h/a", 5 * 10**9, 1.0)]


def test_topics_of_one_path_share_what_is_known():
    bench = Bench(topic="tele/+", path="leon/{host}/{measurement}/{key}")
    bench.feed(b"m,host=h a=1 5")
    bench.feed(b"m,host=h a=1 5", topic="tele/b")
    assert len(bench.router._readers) == 1


def test_rules_that_can_not_be():
    for rule, said in (
        ({"time": "ts"}, "remove time"),
        ({"path": "leon/{host}/{key}"}, "say where {measurement} goes"),
    ):
        with pytest.raises(ConfigError, match=said.replace("{", r"\{")):
            Bench(**rule)


def test_lines_without_a_time_get_the_messages():
    bench = Bench()
    paths = [f"leon/a/unknown/{m}/a" for m in "mno"]
    samples, _ = bench.feed(b"m a=1\nn a=2\no a=3", time_ns=1_000)
    assert samples == [(paths[0], 1_000, 1.0), (paths[1], 1_001, 2.0), (paths[2], 1_002, 3.0)]
    samples, _ = bench.feed(b"m a=1\n# said\n\nn a=2 9\no a=3\n", time_ns=1_000)
    assert samples == [(paths[0], 1_000, 1.0), (paths[1], 9, 2.0), (paths[2], 1_004, 3.0)], (
        "line breaks count"
    )
    samples, _ = bench.feed(b"m a=1\nm a=2", b"m a=3")
    assert [t for _, t, _ in samples] == [100, 101, 200], (
        "those that come at a time have that of their arrival"
    )
    bench.feed(b"m a=1\n\n" * 60)
    assert bench.feed(b"m a=9")[0][0][1] == 320, "and never go back"


def test_mistakes_are_told_with_message_and_line():
    samples, rejects = Bench().feed(b"m a=1 5\nm a\nm a=2 6\nm a=x 7", b"\xff=", b"m a=3 8")
    assert [v for _, _, v in samples] == [1.0, 2.0, 3.0]
    assert [(str(r.code), r.source, r.raw, r.n_samples) for r in rejects] == [
        ("malformed", "tele/a:0:1", b"m a\nm a=x 7", 2), ("malformed", "tele/a:0:2", b"\xff=", 1),
    ]  # fmt: skip
    assert rejects[0].detail.startswith("line 2: expected a field, name=value")


@pytest.mark.parametrize("time", [b" 5", b""])
def test_a_message_of_mistakes_is_not_read_to_its_end(monkeypatch, time):
    monkeypatch.setattr(line_module, "N_REFUSED_MAX", 3)
    payload = b"m a=1" + time + b"\n\n" + b"bad\n" * 50 + b"m a=2" + time
    samples, rejects = Bench().feed(payload, b"m a=3 6")
    assert [v for _, _, v in samples] == [1.0, 3.0]
    assert [(r.n_samples, r.detail.partition(";")[0][-40:]) for r in rejects][-1] == (
        47, "more than 3 lines with mistakes"[-40:],
    )  # fmt: skip
    assert sum(r.n_samples for r in rejects) == 51


def test_a_text_does_not_reach_over_the_end_of_its_message():
    bench = Bench()
    first, second = b'm a=1,s="on" 5', b'm a=2,s="off" 6'
    bench.feed(first, second)
    cut = b'm a=3,s="on'
    samples, rejects = bench.feed(cut, b'x" 7\n' + second)
    assert [v for _, _, v in samples] == [2.0, "off"]
    assert [(r.source, r.raw) for r in rejects] == [("tele/a:0:1", cut), ("tele/a:0:2", b'x" 7\n')]


def test_refused_lines_are_decoded_again_as_they_were():
    bench = Bench(types={"b": "bool"})
    _, (reject,) = bench.feed(b"m a=1\nm a=2,b=3\nm a=4", time_ns=1_000)
    assert (reject.raw, reject.arrival_ns) == (b"m b=3\n", 1_001)
    other = Bench()
    message = TopicMessage("tele/a", reject.raw, reject.arrival_ns)
    (batch,), rejects = other.router.again(message)
    assert (batch.ts_ns.tolist(), batch.values.tolist(), rejects) == ([1_001], [[3.0]], [])


NAMES = st.sampled_from([b"m", b"n,host=h", b"m,host=h,x=y", b'q",t="', b"bad", b""])
FIELDS = st.sampled_from(
    [
        b"a=1.5",
        b"a=2i",
        b"a=t,b=1",
        b's="on"',
        b's="x \\" y",a=1',
        b's="two\nlines"',
        b's="open',
        b"a",
        b"b=1u",
    ]
)
TIMES = st.sampled_from([b" 5", b" 6", b"", b" x"])
LINES = st.tuples(NAMES, FIELDS, TIMES).map(lambda one: one[0] + b" " + one[1] + one[2]) | st.sampled_from(
    [b"# said", b"", b'"', b'" 7']
)
MESSAGES = st.lists(LINES, max_size=5).map(b"\n".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=6), st.sampled_from([NO_TIME, 1_000_000]))
def test_many_messages_are_as_each_alone(payloads, time_ns):
    """However they are gathered: the same samples with the same times, and every message's rejects for itself."""
    one, other = Bench(), Bench()
    together, rejects = one.feed(*payloads, time_ns=time_ns)
    alone, others = other.feed(*payloads, time_ns=time_ns, together=False)
    assert sorted(map(repr, together)) == sorted(map(repr, alone))
    assert [(r.source, r.code, r.raw, r.detail, r.n_samples, r.arrival_ns) for r in rejects] == [
        (r.source, r.code, r.raw, r.detail, r.n_samples, r.arrival_ns) for r in others
    ]
