"""The codec passes Headrace's kit."""

import pytest
from headrace_zlib_planes.codec import ZlibPlanesCodec

from headrace.codecs.registry import value_codec
from headrace.testing.codecs import contract


@pytest.mark.parametrize("check", contract(ZlibPlanesCodec))
def test_it_keeps_the_contract(check):
    check()


def test_it_is_found_by_its_name():
    assert value_codec({"name": "zlib_planes", "level": 9}) == ZlibPlanesCodec(9)
