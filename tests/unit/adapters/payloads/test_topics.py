"""Topic rules: what they subscribe to, what they match, which one wins."""

import pytest

from headrace.adapters.payloads.topics import in_order, match_topic, parse_template, parse_topic
from headrace.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "subscription", "topic", "names"),
    [
        ("plant/{area}/{line}", "plant/+/+", "plant/a/1", {"area": "a", "line": "1"}),
        ("plant/{area}/{line}", "plant/+/+", "plant/a/1/x", None),
        ("plant/+/{line}", "plant/+/+", "plant/a/1", {"line": "1"}),
        ("plant/#", "plant/#", "plant/a/b", {"rest": "a/b"}),
        ("plant/#", "plant/#", "plant", {"rest": ""}),
        ("plant/#", "plant/#", "plants/a", None),
        ("#", "#", "a/b", {"rest": "a/b"}),
        ("a.b/{x}", "a.b/+", "aXb/1", None),
        ("/{x}", "/+", "/1", {"x": "1"}),
        ("{x}/", "+/", "1/", {"x": "1"}),
        ("{x}", "+", "", None),
        ("$share/crew/plant/{x}", "$share/crew/plant/+", "plant/1", {"x": "1"}),
        ("$share/crew/plant/{x}", "$share/crew/plant/+", "$share/crew/plant/1", None),
        ("$share/crew/#", "$share/crew/#", "a/b", {"rest": "a/b"}),
        ("$SYS/{x}", "$SYS/+", "$SYS/1", {"x": "1"}),
    ],
)
def test_topics(text, subscription, topic, names):
    pattern = parse_topic(text)
    assert pattern.filter == subscription
    assert match_topic(pattern, topic) == names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/#/b",
        "a+/b",
        "a/{x",
        "a/{x}y",
        "{x}/{x}",
        "{key}/a",
        "a/{X}",
        "a/\x00",
        "$share/crew",
        "$share",
        "$share//a",
        "$share/{x}/a",
    ],
)
def test_what_is_no_topic(text):
    with pytest.raises(ConfigError, match="topic"):
        parse_topic(text)


def test_a_group_is_one_of_brokers_only():
    assert parse_topic("$share.crew.{x}", ".").filter == "$share.crew.+"


def test_the_more_specific_comes_first():
    texts = ["#", "plant/#", "{a}/{b}", "plant/{b}", "{a}/x", "plant/x"]
    ordered = in_order(map(parse_topic, texts))
    assert [p.text for p in ordered] == ["plant/x", "plant/{b}", "plant/#", "{a}/x", "{a}/{b}", "#"]


def test_two_that_match_the_same_are_an_error():
    with pytest.raises(ConfigError, match=r"'plant/\{a\}' and 'plant/\+' match the same"):
        in_order(map(parse_topic, ["plant/{a}", "plant/+"]))


def test_templates():
    one = parse_template("leon/{area}/x{line}/{key}", ("area", "line"), has_key=True)
    assert one.fill({"area": "a", "line": "1"}) == "leon/a/x1"
    assert one.has_key
    assert parse_template("leon/{area}", ("area",), has_key=False).fill({"area": "b"}) == "leon/b"


@pytest.mark.parametrize(
    ("text", "has_key", "why"),
    [
        ("leon/{area}", True, "must end in a level {key}"),
        ("{key}", True, "must end in a level {key}"),
        ("leon/{key}", False, "has no {key}"),
        ("leon/{line}/{key}", True, "names {line}; the topic has {area}"),
        ("leon/{key}/{key}", True, r"names {key}"),
        ("", False, "names {}; the topic has {area}"),
    ],
)
def test_templates_that_cannot_be(text, has_key, why):
    with pytest.raises(ConfigError) as e:
        parse_template(text, ("area",), has_key)
    assert why in str(e.value)


def test_a_topic_without_names():
    with pytest.raises(ConfigError, match="the topic has none"):
        parse_template("leon/{x}", (), has_key=False)
