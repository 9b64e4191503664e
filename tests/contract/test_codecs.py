"""Every registered codec passes the public kit."""

from __future__ import annotations

import pytest

from headrace.codecs import registry
from headrace.testing import codecs as kit

pytestmark = pytest.mark.timeout(300)  # the first test may compile the kernels


@pytest.mark.parametrize("check", kit.VALUE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", kit.value_codecs())
def test_value_codec(name, check):
    check(registry.VALUE_CODECS.load(name))


@pytest.mark.parametrize("check", kit.LOSSY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", kit.lossy_codecs())
def test_lossy_codec(name, check):
    check(registry.VALUE_CODECS.load(name))


@pytest.mark.parametrize("check", kit.TIME_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", kit.time_codecs())
def test_time_codec(name, check):
    check(registry.TIME_CODECS.load(name))


@pytest.mark.parametrize("check", kit.RELATIVE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", kit.relative_codecs())
def test_relative_codec(name, check):
    check(registry.VALUE_CODECS.load(name))


@pytest.mark.parametrize("check", kit.TOLERANT_TIME_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", kit.tolerant_time_codecs())
def test_tolerant_time_codec(name, check):
    check(registry.TIME_CODECS.load(name))


@pytest.mark.parametrize("name", registry.VALUE_CODECS.names())
def test_names_are_those_of_the_table(name):
    assert registry.VALUE_CODECS.load(name).name == name


@pytest.mark.parametrize("name", registry.TIME_CODECS.names())
def test_time_names_are_those_of_the_table(name):
    assert registry.TIME_CODECS.load(name).name == name
