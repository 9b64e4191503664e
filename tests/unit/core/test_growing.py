import numpy as np
import pytest

from headrace.core.growing import Growing, PackedTexts, PartNames


def test_an_array_that_grows():
    growing = Growing(np.int32)
    growing.extend([1, 2, 3], 3)
    growing.extend(7, 100)
    growing.extend(range(1_000), 1_000)
    assert growing.view.tolist() == [1, 2, 3] + [7] * 100 + list(range(1_000))
    assert growing.n == 1_103


def test_texts_are_a_sequence_of_str():
    texts, want = PackedTexts(), [f"plant/öl{i}" for i in range(100)]
    texts.extend([one.encode() for one in want[:3]])
    texts.extend([one.encode() for one in want[3:]])
    assert len(texts) == 100
    assert (texts[0], texts[99], texts[-1]) == (want[0], want[99], want[99])
    assert texts[5:9] == want[5:9]
    assert texts[90:500] == want[90:]
    assert texts == want
    assert texts != want[:-1]
    assert texts != 7
    assert list(texts) == want
    assert texts.bytes_of(4) == want[4].encode()
    for wrong in (100, -101):
        with pytest.raises(IndexError, match=f"text {wrong} of 100"):
            texts[wrong]


def test_texts_know_what_they_have_at_a_place():
    texts = PackedTexts()
    texts.extend([b"aa", b"b", b"", b"cc"])
    assert texts.has_at(1, [b"b", b"", b"cc"])
    assert texts.has_at(4, [])
    assert not texts.has_at(1, [b"", b"b", b"cc"])
    assert not texts.has_at(1, [b"b", b"", b"cd"])
    assert not texts.has_at(3, [b"cc", b"dd"])


def test_texts_are_the_buffers_of_an_arrow_column():
    texts = PackedTexts()
    texts.extend([b"aa", b"b", b"cc"])
    starts, data = texts.buffers(2)
    assert starts.tolist() == [0, 2, 3]
    assert data.tobytes() == b"aab"


def test_parts_are_a_sequence_of_few_names():
    parts = PartNames()
    parts.extend(["", "u8", ""])
    parts.extend(["~m", "u8"])
    assert parts == ["", "u8", "", "~m", "u8"]
    assert parts != ["", "u8"]
    assert parts != None  # noqa: E711
    assert parts[1:3] == ["u8", ""]
    assert parts[4] == "u8"
    assert parts.names == ["", "u8", "~m"]
    assert parts.number.tolist() == [0, 1, 0, 2, 1]
    assert (parts.number_of("~m"), parts.number_of("x")) == (2, -1)
