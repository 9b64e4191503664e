"""The codec passes Headrace's kit."""

import pytest
from headrace_zlib_planes.codec import ZlibPlanesCodec

from headrace.codecs.registry import value_codec
from headrace.testing import codecs as kit


@pytest.mark.parametrize("check", kit.VALUE_CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(check):
    check(ZlibPlanesCodec)


def test_it_is_found_by_its_name():
    assert value_codec({"name": "zlib_planes", "level": 9}) == ZlibPlanesCodec(9)
