"""The choice: the smallest payload that proves itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headrace.codecs.base import SeriesCodec
from headrace.codecs.const import ConstCodec
from headrace.codecs.delta_of_delta import DeltaOfDeltaTime
from headrace.codecs.gcd_pco import GcdPcoTime
from headrace.codecs.pco import PcoCodec
from headrace.codecs.raw import RawCodec
from headrace.codecs.regular import RegularTime
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.select import smallest, smallest_times

ALL = (ConstCodec(), RiceDeltaCodec(), PcoCodec())


@dataclass(frozen=True, slots=True)
class RoundingCodec(SeriesCodec):
    """Small and wrong."""

    name: ClassVar[str] = "rounding"

    def pack(self, values):
        return b""

    def unpack(self, body, n, dtype):
        return np.zeros(n, dtype)


def test_constant_values_take_const():
    assert smallest(np.full(500, np.pi), ALL).codec == ConstCodec()


def test_noise_stays_raw():
    noise = np.frombuffer(np.random.default_rng(0).bytes(8000), np.float64)
    assert smallest(noise, (RiceDeltaCodec(),)).codec == RawCodec()


def test_a_codec_that_lies_is_passed_over():
    values = np.arange(1, 100) / 4
    chosen = smallest(values, (RoundingCodec(), *ALL))
    assert chosen.codec != RoundingCodec()
    assert chosen.codec.unpack(chosen.body, values.size, values.dtype).tobytes() == values.tobytes()


def test_no_candidate_is_raw():
    assert smallest(np.arange(5), ()).codec == RawCodec()


def test_times_take_the_smallest_too():
    regular = 1_750_000_000_123_456_789 + np.arange(20_000) * 10**9
    assert smallest_times(regular, (GcdPcoTime(), RegularTime())).codec == RegularTime()
    rng = np.random.default_rng(1)
    jitter = regular + rng.integers(0, 20, regular.size) * 10**6
    assert smallest_times(jitter, (RegularTime(),)).codec == DeltaOfDeltaTime()
    assert smallest_times(jitter, (RegularTime(), GcdPcoTime())).codec == GcdPcoTime()
