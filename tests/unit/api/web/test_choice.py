"""What a page shows, and its address."""

from headrace.api.web.choice import Choice
from headrace.api.web.trends import CURVES_MAX
from headrace.core.clock import NS


def test_an_address_says_what_is_shown_and_back():
    choice = Choice({"a/b": 0, "c": 1}, 3_600 * NS)
    assert choice.to_address() == [("s", "a/b"), ("s", "c"), ("last", "1h")]
    assert Choice.from_address(choice.to_address()) == choice
    fixed = choice.looking(60 * NS, 500 * NS)
    assert Choice.from_address(fixed.to_address()) == fixed
    none = Choice({})
    assert Choice.from_address(none.to_address()) == none


def test_without_an_address_nobody_has_chosen_yet():
    fresh = Choice.from_address([])
    assert fresh.is_untouched
    assert fresh.begun([]).is_untouched
    begun = fresh.begun(["x", "y"])
    assert (begun.is_untouched, begun.paths) == (False, ("x", "y"))
    assert not fresh.toggled("x").is_untouched


def test_an_address_of_nonsense_shows_the_usual():
    usual = Choice.from_address([("s", "a")])
    for words in (
        [("last", "soon")],
        [("from_ms", "1")],
        [("from_ms", "9"), ("to_ms", "1")],
        [("from_ms", "x"), ("to_ms", "y")],
        [("from_ms", "1"), ("to_ms", "9" * 30)],
    ):
        assert Choice.from_address([("s", "a"), ("s", "a"), *words]) == usual
    many = Choice.from_address([("s", str(n)) for n in range(99)])
    assert len(many.paths) == CURVES_MAX


def test_a_sensor_keeps_its_colour_and_the_oldest_makes_room():
    choice = Choice({}).toggled("a").toggled("b").toggled("c").toggled("b").toggled("d")
    assert choice.colors == {"a": 0, "c": 2, "d": 1}
    for n in range(CURVES_MAX):
        choice = choice.toggled(f"n{n}")
    assert len(choice.paths) == CURVES_MAX
    assert sorted(choice.colors.values()) == list(range(CURVES_MAX))
    assert "a" not in choice.colors


def test_the_span_is_told_in_milliseconds():
    assert Choice({}, 60 * NS, 90 * NS).span_dict() == {"length_ms": 60_000, "end_ms": 90_000}
    assert Choice({}).span_dict()["end_ms"] is None
