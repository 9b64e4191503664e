"""Every registered codec passes the public kit."""

from __future__ import annotations

import pytest

from headrace.codecs import registry
from headrace.testing import codecs as kit

CODECS = {
    kit.VALUE_CHECKS: (registry.VALUE_CODECS, kit.value_codecs()),
    kit.LOSSY_CHECKS: (registry.VALUE_CODECS, kit.lossy_codecs()),
    kit.RELATIVE_CHECKS: (registry.VALUE_CODECS, kit.relative_codecs()),
    kit.TIME_CHECKS: (registry.TIME_CODECS, kit.time_codecs()),
    kit.TOLERANT_TIME_CHECKS: (registry.TIME_CODECS, kit.tolerant_time_codecs()),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(*one.values, id=f"{name}-{one.id}")
        for family, names in CODECS.values()
        for name in names
        for one in kit.contract(family.load(name))
    ],
)
def test_a_codec_keeps_the_contract(check):
    check()


def test_the_contract_of_a_codec_is_that_of_its_family():
    for checks, (family, names) in CODECS.items():
        assert names
        assert [kit.checks_of(family.load(name)) for name in names] == [checks] * len(names)
    assert kit.checks_of(lambda: registry.VALUE_CODECS.load("pco")(3)) is kit.VALUE_CHECKS
    assert kit.checks_of(lambda eps: registry.VALUE_CODECS.load("quantise")(eps)) is kit.LOSSY_CHECKS
    assert kit.checks_of(lambda share: registry.VALUE_CODECS.load("relative")(share)) is kit.RELATIVE_CHECKS
    assert kit.checks_of(lambda ns: registry.TIME_CODECS.load("jitter")(ns)) is kit.TOLERANT_TIME_CHECKS
    for wrong in (int, lambda: 3, lambda a, b: None):
        with pytest.raises(TypeError, match="no codec"):
            kit.contract(wrong)


@pytest.mark.parametrize("name", registry.VALUE_CODECS.names())
def test_names_are_those_of_the_table(name):
    assert registry.VALUE_CODECS.load(name).name == name


@pytest.mark.parametrize("name", registry.TIME_CODECS.names())
def test_time_names_are_those_of_the_table(name):
    assert registry.TIME_CODECS.load(name).name == name
