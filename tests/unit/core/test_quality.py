import numpy as np

from headrace.core.quality import Quality, usable, word


def test_good_and_uncertain_values_are_usable():
    codes = np.array([q.value for q in Quality], np.uint8)
    names = [Quality(c).name for c in codes[usable(codes)]]
    assert names == ["GOOD", "UNCERTAIN", "UNCERTAIN_RANGE", "UNCERTAIN_STALE", "UNCERTAIN_TIME"]


def test_every_code_has_a_word():
    assert word(Quality.BAD_NOT_FINITE) == "bad-not-finite"
    assert word(0) == "good"
    assert word(0x91) == "bad-17"
    assert len({word(code) for code in range(256)}) == 256
