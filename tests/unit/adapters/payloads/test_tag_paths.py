"""Paths of devices from measurement and tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.adapters.payloads.tag_paths import compile_tag_path, default_template, level
from headrace.core.errors import ConfigError
from headrace.core.paths import check_path

LEVELS = ("site", "area", "line", "device", "signal")


@pytest.mark.parametrize(
    ("levels", "template"),
    [
        (LEVELS, "{site}/{area}/{host}/{measurement}/{field}"), (LEVELS[2:], "{host}/{measurement}/{field}"),
        ((), "{host}/{measurement}/{field}"), (LEVELS[1:], "{area}/{host}/{measurement}/{field}"),
    ],
)  # fmt: skip
def test_the_path_follows_from_the_plants_levels(levels, template):
    assert default_template(levels) == template
    compile_tag_path(template, levels, {}, True)


def test_tags_make_the_path():
    naming = compile_tag_path("leon/{line}/x-{host}/{measurement}/{field}", LEVELS, {"line": "l0"}, True)
    assert naming.path("cpu", {"line": "l1", "host": "pi"}) == "leon/l1/x-pi/cpu"
    assert (
        naming.path("a/b", {"host": "p*i", "cpu": "c;0", "b": "="}) == "leon/l0/x-p%2Ai/a%2Fb;b=%3D;cpu=c%3B0"
    )
    assert naming.path("cpu", {}) == "leon/l0/x-unknown/cpu"
    short = compile_tag_path("{host}/{measurement}/{field}", (), {}, False)
    assert short.path("cpu", {"host": "pi", "cpu": "c0"}) == "pi/cpu"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{host}/{measurement}", "must end in a level {field}"), ("{field}", "must end in a level {field}"),
        ("{field}/a/b/c/{field}", "must end in a level {field}"), ("{host}/{measurement}/{field}", "3 levels, expected 5: site/area"),
        ("a/b/c/{host}/{field}", "two measurements of a device could be one sensor"),
        ("a/b//{measurement}/{field}", "can't name a sensor"), ("a/{measurement}/{}/d/{field}", "can't name a sensor"),
    ],
)  # fmt: skip
def test_templates_that_can_be_none(template, text):
    with pytest.raises(ConfigError, match=text):
        compile_tag_path(template, LEVELS, {}, True)


@given(st.text(min_size=1, max_size=6), st.text(min_size=1, max_size=6))
def test_levels_are_as_different_as_their_texts(one, other):
    assert (level(one) == level(other)) == (one == other)
    if not any("\ud800" <= char <= "\udfff" for char in one):
        check_path("x" + level(one))
