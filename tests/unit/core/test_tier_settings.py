"""``[tiers.NAME]``: what is read, and what is refused with a sentence that helps."""

import datetime

import pytest
from pydantic import ValidationError

from headrace.core.clock import NS
from headrace.core.tier_settings import TierAges, TierBound, TierSection

DAY_NS = 86_400 * NS


def section(**keys):
    return TierSection.model_validate({"match": "**", **keys})


def test_ages_rise():
    ages = TierAges.model_validate({"warm": "1d", "cold": "30d", "delete": "10y"})
    assert (ages.warm, ages.cold, ages.rollups) == (DAY_NS, 30 * DAY_NS, None)
    with pytest.raises(ValidationError, match="cold = '1h' does not come after warm = '1d'; ages rise"):
        TierAges.model_validate({"warm": "1d", "cold": "1h"})
    assert TierAges.model_validate({"cold": "30d"}).warm is None


@pytest.mark.parametrize("key", ["range", "absolute", "value"])
def test_a_bound_is_one_of_three(key):
    assert TierBound.model_validate({key: 0.25}).text == f"{key} = 0.25"


@pytest.mark.parametrize("wrong", [{}, {"range": 0.1, "absolute": 1}])
def test_none_or_two_are_no_bound(wrong):
    with pytest.raises(ValidationError, match="a bound is one of"):
        TierBound.model_validate(wrong)


@pytest.mark.parametrize("wrong", [True, "much", float("nan"), float("inf")])
def test_a_bound_is_a_number(wrong):
    with pytest.raises(ValidationError, match="is not a number"):
        TierBound.model_validate({"absolute": wrong})


def test_holds_last_until_they_end():
    assert section().held_until_ns == 0
    assert section(hold=True).held_until_ns == 2**63 - 1
    new_year = int(datetime.datetime(2031, 1, 1, tzinfo=datetime.UTC).timestamp()) * NS
    for until in (datetime.date(2031, 1, 1), "2031-01-01", "2031-01-01T01:00:00+01:00"):
        assert section(hold={"until": until}).held_until_ns == new_year
    with pytest.raises(ValidationError, match="'soon' is not a date; write until = 2030-12-31"):
        section(hold={"until": "soon"})


def test_a_hold_alone_governs_nothing():
    assert not section(hold=True).governs
    assert section(after={"cold": "30d"}).governs
