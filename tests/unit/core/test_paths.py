import pytest

from headrace.core.errors import ConfigError
from headrace.core.paths import (
    MAX_PATH_BYTES,
    check_path,
    check_paths,
    format_duration,
    parent,
    parse_duration_ns,
    parse_size_bytes,
    pattern_regex,
)


@pytest.mark.parametrize(
    "path", ["a", "leon/paint/line1/oven1/temperature", "ä/ö 1/x.y", "a/..b", "x" * 1_024]
)
def test_paths_that_name_sensors(path):
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "a\nb",
        "a/*",
        "a{b",
        "a}b",
        "a,b",
        "a#b",
        "a+b",
        "x" * 1_025,
        "é" * 513,
        "a/\ud800",
    ],
)
def test_paths_that_cannot_name_sensors(path):
    with pytest.raises(ConfigError, match="can't name a sensor"):
        check_path(path)


def test_parent():
    assert parent("a/b/c") == "a/b"
    assert parent("a") == ""


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("a/b", ["a/b"], ["a", "a/b/c", "xa/b"]),
        ("a/*", ["a/b", "a/bc"], ["a", "a/b/c"]),
        ("a/b*d", ["a/bd", "a/bccd"], ["a/b/d", "a/bdx"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("**/t", ["t", "a/t", "a/b/t"], ["a/t/x", "xt"]),
        ("a/**/t", ["a/t", "a/b/t", "a/b/c/t"], ["b/t", "a/b"]),
        ("a/**", ["a", "a/b", "a/b/c"], ["ab", "b/a"]),
        ("**/**", ["a", "a/b"], []),
        ("a/{b,c}/t", ["a/b/t", "a/c/t"], ["a/d/t"]),
        ("a/x{1,2{a,b}}", ["a/x1", "a/x2a", "a/x2b"], ["a/x2"]),
        ("a,b", ["a,b"], ["a"]),
        ("/a/b/", ["a/b"], []),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_patterns(pattern, matching, other):
    regex = pattern_regex(pattern)
    assert [p for p in matching + other if regex.fullmatch(p)] == matching


@pytest.mark.parametrize("pattern", ["", "/", "a/{b", "a/b}", "}{", "{a}b}", "leon/{a/b}/t"])
def test_patterns_that_are_none(pattern):
    with pytest.raises(ConfigError, match="pattern"):
        pattern_regex(pattern)


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("250us", 250_000),
        ("250ms", 250_000_000),
        ("1.5h", 5_400_000_000_000),
        ("1m30s", 90_000_000_000),
        (" 7 d ", 604_800_000_000_000),
        ("2w", 1_209_600_000_000_000),
        ("1y", 31_536_000_000_000_000),
    ],
)
def test_durations(text, duration_ns):
    assert parse_duration_ns(text) == duration_ns


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1M", "-1s", "1s!", "1.s", " "])
def test_durations_that_are_none(text):
    with pytest.raises(ConfigError, match="is not a duration; write a number and a unit"):
        parse_duration_ns(text)


def test_a_duration_fits_64_bits():
    assert parse_duration_ns("200y") < 2**63
    with pytest.raises(ConfigError, match="longer than"):
        parse_duration_ns("201y")


@pytest.mark.parametrize("text", ["1y", "2w", "7d", "3h", "1m", "90s", "1500ms", "250us", "7ns", "0ns"])
def test_durations_are_written_as_they_are_read(text):
    shortest = format_duration(parse_duration_ns(text))
    assert parse_duration_ns(shortest) == parse_duration_ns(text)
    assert len(shortest) <= len(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1B", 1), ("64MB", 64_000_000), ("1.5 kB", 1_500), ("8GiB", 8 << 30), ("2TB", 2 * 10**12)],
)
def test_sizes(text, size_bytes):
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "1", "64mb", "1iB", "-1MB", "1MBs"])
def test_sizes_that_are_none(text):
    with pytest.raises(ConfigError, match="is not a size"):
        parse_size_bytes(text)


@pytest.mark.parametrize("pattern", ["**/**/b", "**/b", "a***/b", "a*/**/**/b"])
def test_repeated_wildcards_are_one(pattern):
    assert pattern_regex(pattern).fullmatch("a/b")
    assert not pattern_regex(pattern).fullmatch("a/c")


@pytest.mark.parametrize("pattern", ["*a" * 25, "{a,b}" * 25, "*/" * 25 + "x"])
def test_a_pattern_with_too_many_wildcards_is_refused(pattern):
    with pytest.raises(ConfigError, match="at most 24 wildcards"):
        pattern_regex(pattern)


def test_sizes_that_no_disk_has():
    with pytest.raises(ConfigError, match="is more than the largest size, 1000000TB"):
        parse_size_bytes("9" * 400 + "GB")
    assert parse_size_bytes("1000000TB") == 10**18


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "a*b",
        "a{b",
        "a\nb",
        "a\x00",
        "x" * (MAX_PATH_BYTES + 1),
        "ö" * MAX_PATH_BYTES,
        "a#b",
    ],
)
def test_many_paths_are_checked_as_one_is(wrong):
    good = ["a", "a/b", "öl/x y"]
    check_paths([path.encode() for path in good])
    for place in range(4):
        texts = [path.encode() for path in [*good[:place], wrong, *good[place:]]]
        with pytest.raises(ConfigError, match="can't name a sensor"):
            check_paths(texts)
    with pytest.raises(ConfigError, match="can't name a sensor"):
        check_paths([wrong.encode()])
