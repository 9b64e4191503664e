"""Which pattern is more specific, and which two tie."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.paths import pattern_regex
from headrace.core.specificity import can_both_match, specificity, ties


def test_the_more_is_said_the_more_specific():
    patterns = [
        "leon/paint/line1/oven1/temperature", "leon/paint/line1/*/temperature", "leon/**/oven1/temperature",
        "leon/*/*/*/temperature", "leon/**/temperature", "**/oven*/temperature", "*/*/*/*/temperature",
        "*/**/temperature", "**/temperature", "**/temp*", "*/**", "**",
    ]  # fmt: skip
    assert sorted(patterns, key=specificity, reverse=True) == patterns


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("**", "a/b", True), ("a/*", "*/b", True), ("a/*", "b/*", False), ("a/{x,y}", "a/{y,z}", True),
        ("a/{x,y}", "a/{v,z}", False), ("a*c", "ab*", True), ("a*c", "*d", False), ("a/**/z", "**/b/z", True),
        ("a/**", "a", True), ("a/b", "a/b/c", False),
    ],
)  # fmt: skip
def test_whether_two_patterns_can_match_one_path(one, other, meet):
    assert can_both_match(one, other) is meet
    assert can_both_match(other, one) is meet


LEVEL = st.sampled_from(["a", "b", "ab", "*", "a*", "{a,b}", "**"])
PATTERNS = st.lists(LEVEL, min_size=1, max_size=4).map("/".join)
PATHS = ["/".join(p) for n in range(1, 5) for p in itertools.product(["a", "b", "ab"], repeat=n)]


@given(PATTERNS, PATTERNS)
def test_patterns_meet_wherever_a_path_matches_both(one, other):
    both = [p for p in PATHS if pattern_regex(one).fullmatch(p) and pattern_regex(other).fullmatch(p)]
    assert can_both_match(one, other) or not both


def test_ties_are_pairs_that_are_equal_and_meet():
    assert list(ties(["a/**", "**/b", "c/**", "a/b"])) == [(0, 1), (1, 2)]
