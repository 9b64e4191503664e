import re

import pytest

import headrace


def test_the_package_knows_its_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", headrace.__version__)


@pytest.mark.parametrize("name", headrace.__all__)
def test_what_the_package_offers_is_there(name):
    assert getattr(headrace, name).__name__ == name


def test_what_it_does_not_offer_is_an_error():
    with pytest.raises(AttributeError, match="module 'headrace' has no attribute 'nothing'"):
        headrace.nothing  # noqa: B018
