"""Codecs by name: found, rebuilt from their settings, and nothing heavy loaded before one is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.codecs.base import SeriesCodec
from headrace.codecs.pco import PcoCodec
from headrace.codecs.registry import time_codec, value_codec
from headrace.codecs.regular import RegularTime
from headrace.core.errors import ConfigError


def test_a_codec_is_rebuilt_from_its_settings():
    assert value_codec({"name": "pco", "level": 8}) == PcoCodec(8)
    assert value_codec({"name": "pco"}) == PcoCodec()
    assert time_codec({"name": "regular"}) == RegularTime()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"name": "pko"}, "did you mean 'pco'"),
        ({"name": "pco", "level": 99}, "0 to 12"),
        ({"name": "pco", "speed": 1}, "speed"),
        ({"name": "rice_delta", "piece": 3}, "16 to 65536"),
        ({"name": 7}, "'name'"),
        ({}, "'name'"),
    ],
)
def test_what_is_no_codec_is_a_config_error(spec, text):
    with pytest.raises(ConfigError, match=text):
        value_codec(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "rate", "rate_num": 0},
        {"name": "rate", "rate_den": -1},
        {"name": "gcd_pco", "level": 13},
        {"name": "delta_of_delta", "piece": 1 << 20},
    ],
)
def test_wrong_settings_of_times_are_a_config_error(spec):
    with pytest.raises(ConfigError, match=spec["name"]):
        time_codec(spec)


@pytest.mark.parametrize("module", ["registry", "base", "block", "wave", "rice_delta", "select"])
def test_numba_is_loaded_by_the_first_kernel_only(module):
    code = f"import sys, headrace.codecs.{module}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_are_what_the_class_says():
    assert PcoCodec(3).to_dict() == {"name": "pco", "level": 3}
    assert issubclass(PcoCodec, SeriesCodec)
