"""The kit that every codec has to pass. Plain functions; `make` returns a codec with the settings to be tested.

Example of a third party's test::

    from headrace.testing.codecs import contract

    @pytest.mark.parametrize("check", contract(MyCodec))
    def test_my_codec(check):
        check()

What it promises a codec shows by its settings and methods: of which family it is, the checks that it has to pass follow from
that (`checks_of`). Each raises AssertionError with the sample's name where the promise of `headrace.codecs.base` is broken.
"""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs import registry
from headrace.codecs.base import LossyCodec, TimeCodec, Unfit, ValueCodec, keeps_bound, same_bits
from headrace.codecs.bounds import Reach
from headrace.core.errors import CorruptionError
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.core.registry import Registry

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
MakeValueCodec = Callable[[], ValueCodec]
MakeTimeCodec = Callable[[], TimeCodec]
MakeLossyCodec = Callable[[float], LossyCodec]
"""From the bound; a class of codecs whose other settings have defaults is one."""
MakeTolerantCodec = Callable[[int], TimeCodec]
"""From the tolerance in ns."""

SHARES = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 1e3)
"""Bounds to be kept, as shares of the largest value."""

MEMORY_MAX = 32 << 20
"""Bytes that decoding a hundred values from nonsense may take."""


def value_samples(seed: int = 0, n: int = 300) -> Iterator[tuple[str, Array]]:
    """Arrays as sensors give them, of each value type: ``(name, T[n])``."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.integers(-2, 3, n)) + 100
    shapes = {
        "constant": np.full(n, 77),
        "ramp": np.arange(n) % 128,
        "walk": np.clip(walk, 0, 127),
        "steps": np.repeat(rng.integers(0, 5, -(-n // 30)), 30)[:n] * 10,
        "noise": rng.integers(0, 128, n),
        "outliers": np.where(rng.random(n) < 0.02, 127, 3),
    }
    for name in DTYPES:
        dtype = numpy_dtype(name)
        for shape, numbers in shapes.items():
            yield f"{name} {shape}", numbers.astype(dtype)
        if dtype.kind == "f":
            yield f"{name} decimals", (walk / 10).astype(dtype)
            yield f"{name} scaled", (walk * 0.1).astype(dtype)
            yield f"{name} smooth", np.sin(np.arange(n) / 30).astype(dtype)
            yield f"{name} gaps", np.where(rng.random(n) < 0.1, np.nan, walk / 4).astype(dtype)


def extreme_values(seed: int = 0) -> Iterator[tuple[str, Array]]:
    """What real sources send once a year: ``(name, T[n])`` with limits, random bits, NaN payloads, zeros' signs."""
    rng = np.random.default_rng(seed)
    for name in DTYPES:
        dtype = numpy_dtype(name)
        width = dtype.itemsize
        yield f"{name} none", np.empty(0, dtype)
        yield f"{name} one", np.ones(1, dtype)
        yield f"{name} random bits", np.frombuffer(rng.bytes(200 * width), dtype)
        if dtype.kind in "ui":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            yield (
                f"{name} limits",
                np.array([low, high, low, low, high, 0, 1, high, high - 1, low + 1], dtype),
            )
            yield f"{name} two limits", np.array([high, low], dtype)
        else:
            tiny = np.finfo(dtype).smallest_subnormal
            special = [0.0, -0.0, np.inf, -np.inf, np.nan, tiny, -tiny, np.finfo(dtype).max, 1.1, 1e-300]
            with np.errstate(over="ignore", under="ignore"):
                yield f"{name} special", np.array(special * 3).astype(dtype)
            payloads = np.full(20, np.nan, dtype)
            payloads.view(f"u{width}")[::3] ^= 1
            payloads.view(f"u{width}")[1::3] |= np.uint64(1 << (8 * width - 1)).astype(f"u{width}")
            yield f"{name} NaN payloads", payloads
            zeros = np.zeros(70, dtype)
            zeros[::7] = -0.0
            yield f"{name} signed zeros", zeros


def time_samples(seed: int = 0, n: int = 300) -> Iterator[tuple[str, I64]]:
    """Times as sources give them: ``(name, int64[n])``."""
    rng = np.random.default_rng(seed)
    start = 1_750_000_000_000_000_000
    second = 1_000_000_000
    regular = start + np.arange(n) * second
    yield "regular", regular
    yield "millisecond jitter", regular + rng.integers(-20, 20, n) * 1_000_000
    yield "nanosecond jitter", regular + rng.integers(-(10**6), 10**6, n)
    yield "gaps", regular + np.repeat(np.arange(-(-n // 50)), 50)[:n] * 3600 * second
    yield "irregular", start + np.cumsum(rng.integers(1, 10**12, n))
    yield "12 kHz", start + np.arange(n) * second // 12_000
    yield "repeats", np.repeat(regular, 3)[:n]
    yield "backwards", regular[::-1].copy()
    yield "limits", np.array([-(2**63), 2**63 - 1, 0, -(2**63), -1, 1], np.int64)
    yield "none", np.empty(0, np.int64)
    yield "one", np.array([start])


def check_round_trip(make: MakeValueCodec) -> None:
    """Sensor-like values come back bit for bit, or are refused as `Unfit`; some are not refused."""
    codec = make()
    kept = [name for name, values in value_samples() if _returns(codec, values, name)]
    assert kept, f"{codec} refuses every sample"


def check_extremes(make: MakeValueCodec) -> None:
    """Limits, random bits, NaN payloads, -0.0, empty and single values come back bit for bit, or are refused."""
    codec = make()
    for name, values in extreme_values():
        _returns(codec, values, name)


def check_corrupt(make: MakeValueCodec) -> None:
    """Flipped, cut, extended and random bytes, a wrong count or type: CorruptionError, in bounded memory."""
    codec = make()
    values = _first_kept(codec)
    payload = codec.encode(values)
    whole = codec.decode(payload, values.size, values.dtype)
    for name, damaged in damages(payload):
        _refuses(lambda d=damaged: codec.decode(d, values.size, values.dtype), name)  # type: ignore[misc]
    width = values.dtype.itemsize
    other = np.dtype(f"{values.dtype.kind}{2 * width if width < 8 else 4}")
    for n in (0, 1, values.size - 1, values.size + 1):
        try:
            decoded = codec.decode(payload, n, values.dtype)
        except CorruptionError:
            continue
        common = min(n, values.size)
        assert same_bits(decoded[:common], whole[:common]), f"{codec}: {n} of {values.size} values are others"
    _refuses(lambda: codec.decode(payload, values.size, other), f"{other} wanted")


def check_settings(make: MakeValueCodec | MakeTimeCodec) -> None:
    """A codec is data: frozen, equal to its copy, rebuilt from what `to_dict` says, by its registered name."""
    codec: Any = make()
    spec = json.loads(json.dumps(codec.to_dict()))
    assert spec["name"] == codec.name
    assert type(codec).from_dict(spec) == codec
    assert hash(type(codec).from_dict(spec)) == hash(codec)
    for field in spec.keys() - {"name"}:
        try:
            setattr(codec, field, spec[field])
        except FrozenInstanceError:
            continue
        raise AssertionError(f"{codec}: {field} can be changed")


def check_same_bytes(make: MakeValueCodec) -> None:
    """The same values give the same bytes, whatever was encoded between; the input is left as it was."""
    codec = make()
    values = _first_kept(codec)
    before = values.copy()
    first = codec.encode(values)
    for _, others in value_samples(seed=1):
        _encode(codec, others)
    assert codec.encode(values) == first, f"{codec} keeps something between calls"
    assert same_bits(values, before), f"{codec} changes its input"
    values.flags.writeable = False
    assert codec.encode(values) == first, f"{codec} depends on more than the values"


def check_times_round_trip(make: MakeTimeCodec) -> None:
    """Times come back exactly, or are refused as `Unfit`; some are not refused."""
    codec = make()
    kept = 0
    for name, ts_ns in time_samples():
        try:
            payload = codec.encode(ts_ns)
        except Unfit:
            continue
        kept += 1
        assert same_bits(codec.decode(payload, ts_ns.size), ts_ns), f"{codec}: {name} came back different"
    assert kept, f"{codec} refuses every sample"


def check_times_corrupt(make: MakeTimeCodec) -> None:
    """As `check_corrupt`."""
    codec = make()
    ts_ns = 1_750_000_000_000_000_000 + np.arange(100) * 1_000_000_000
    for name, damaged in damages(codec.encode(ts_ns)):
        _refuses(lambda d=damaged: codec.decode(d, ts_ns.size), name)  # type: ignore[misc]


def check_lossy_bound(make: MakeLossyCodec) -> None:
    """Sensor-like floats come back within bounds from a billionth to a thousandfold of them; some are refused only."""
    kept = 0
    for name, values in value_samples():
        if values.dtype.kind == "f" and np.isfinite(values).all():
            largest = float(np.abs(values).max())
            kept += sum(_is_near(make(largest * share), values, name) for share in SHARES)
    assert kept > len(SHARES), f"{make(1.0)} refuses nearly every sample"


def check_lossy_extremes(make: MakeLossyCodec) -> None:
    """Subnormal and huge values, -0.0, none and one: within any bound, or refused; so are bounds of any size."""
    for name, values in (*extreme_values(), *_finite_extremes()):
        if values.dtype.kind == "f" and np.isfinite(values).all():
            for eps in (5e-324, 1e-310, 1e-200, 1e-40, 1e-9, 1.0, 1e30, 1e200, 1.7e308):
                _is_near(make(eps), values, name)


def check_lossy_refusals(make: MakeLossyCodec) -> None:
    """Values that are not finite, and those of integer types, are refused whatever the bound."""
    for name, values in (*value_samples(), *extreme_values()):
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            for eps in (1e-3, 1e3):
                assert _encode(make(eps), values) is None, f"{make(eps)} takes {name}"


def check_lossy_corrupt(make: MakeLossyCodec) -> None:
    """As `check_corrupt`."""
    for eps in (0.01, 0.3, 30.0):
        check_corrupt(lambda e=eps: make(e))  # type: ignore[misc]


def check_lossy_settings(make: MakeLossyCodec) -> None:
    """As `check_settings`; the bound is among the settings, and is a finite number above 0."""
    check_settings(lambda: make(0.3))
    assert make(0.3).to_dict()["eps"] == 0.3
    for eps in (0.0, -1.0, np.inf, np.nan):
        _refuses_setting(make, eps)


def check_lossy_same_bytes(make: MakeLossyCodec) -> None:
    """As `check_same_bytes`."""
    check_same_bytes(lambda: make(0.3))


def check_relative_bound(make: Callable[[float], ValueCodec]) -> None:
    """Floats of any size come back within a share of each, zeros as they were; what is not finite is refused."""
    kept = 0
    for name, values in (*value_samples(), *_finite_extremes(), *extreme_values()):
        for share in (1e-6, 1e-3, 0.05, 0.5):
            payload = _encode(make(share), values)
            if payload is None:
                continue
            kept += 1
            decoded = make(share).decode(payload, values.size, values.dtype)
            assert (decoded.dtype, decoded.shape) == (values.dtype, values.shape), f"{name} changes shape"
            assert values.dtype.kind == "f", f"{make(share)} takes {name}"
            assert Reach(share=share).kept(decoded, values), f"{make(share)}: {name} passes the bound"
    assert kept > len(SHARES), f"{make(0.1)} refuses nearly every sample"


def check_relative_corrupt(make: Callable[[float], ValueCodec]) -> None:
    """As `check_corrupt`."""
    check_corrupt(lambda: make(0.01))


def check_relative_settings(make: Callable[[float], ValueCodec]) -> None:
    """As `check_settings`; shares are above 0 and below 1. As `check_same_bytes`, too."""
    check_settings(lambda: make(0.01))
    check_same_bytes(lambda: make(0.01))
    for share in (0.0, -0.1, 1.0, np.inf, np.nan):
        _refuses_setting(make, share)


def check_tolerant_bound(make: MakeTolerantCodec) -> None:
    """Times come back within the tolerance and in the order that they had; rising ones keep their ends."""
    kept = 0
    for name, ts_ns in time_samples():
        for tolerance_ns in (0, 1, 999, 10**6, 10**9, 10**12):
            codec = make(tolerance_ns)
            try:
                payload = codec.encode(ts_ns)
            except Unfit:
                continue
            kept += 1
            check_tolerance(ts_ns, codec.decode(payload, ts_ns.size), tolerance_ns, f"{codec}: {name}")
    assert kept, f"{make(0)} refuses every sample"


def check_tolerance(ts_ns: I64, decoded: I64, tolerance_ns: int, name: str) -> None:
    """Whether decoded times are what a tolerance allows; AssertionError with the name where not."""
    assert (decoded.dtype, decoded.shape) == (ts_ns.dtype, ts_ns.shape), f"{name} changes shape"
    off = [abs(a - b) for a, b in zip(decoded.tolist(), ts_ns.tolist(), strict=True)]
    assert max(off, default=0) <= tolerance_ns, f"{name} passes the tolerance"
    was, now = ts_ns[1:] > ts_ns[:-1], decoded[1:] > decoded[:-1]
    if was.all():
        assert now.all(), f"{name}: two times have become one, or changed places"
    if (ts_ns[1:] >= ts_ns[:-1]).all():
        assert (decoded[1:] >= decoded[:-1]).all(), f"{name}: times have changed places"
        assert same_bits(decoded[[0, -1][: ts_ns.size]], ts_ns[[0, -1][: ts_ns.size]]), (
            f"{name}: an end has moved"
        )


def check_tolerant_corrupt(make: MakeTolerantCodec) -> None:
    """As `check_corrupt`."""
    check_times_corrupt(lambda: make(10**6))


def check_tolerant_settings(make: MakeTolerantCodec) -> None:
    """As `check_settings`; a tolerance is a whole number from 0 on."""
    check_settings(lambda: make(10**6))
    for tolerance_ns in (-1, 2**70, 0.5):
        _refuses_setting(make, tolerance_ns)


VALUE_CHECKS = (check_round_trip, check_extremes, check_corrupt, check_settings, check_same_bytes)
"""What a codec of values has to pass."""

LOSSY_CHECKS = (
    check_lossy_bound,
    check_lossy_extremes,
    check_lossy_refusals,
    check_lossy_corrupt,
    check_lossy_settings,
    check_lossy_same_bytes,
)
"""What a codec of values with a bound has to pass."""

RELATIVE_CHECKS = (check_relative_bound, check_relative_corrupt, check_relative_settings)
"""What a codec of values with a bound relative to each value has to pass."""

TOLERANT_TIME_CHECKS = (check_tolerant_bound, check_tolerant_corrupt, check_tolerant_settings)
"""What a codec of times with a tolerance has to pass."""

TIME_CHECKS = (check_times_round_trip, check_times_corrupt, check_settings)
"""What a codec of times has to pass."""


def contract(make: Callable[..., Any]) -> list[Any]:
    """Every check that a codec has to pass, for ``pytest.mark.parametrize``: each is called without arguments.

    Parameters
    ----------
    make : makes a codec: the class itself, or a function. One of a codec with a bound or a tolerance takes that.
    """
    import pytest

    return [pytest.param(partial(check, make), id=check.__name__) for check in checks_of(make)]


def checks_of(make: Callable[..., Any]) -> tuple[Callable[[Any], None], ...]:
    """The checks of the family that a codec is of: of values or of times, lossless, with a bound or a tolerance.

    Raises
    ------
    TypeError : `make` makes no codec.
    """
    part: Any = make if isinstance(make, type) else type(_made(make))
    if not callable(getattr(part, "unpack", None)):
        raise TypeError(f"{part.__name__} is no codec: see headrace.codecs.base")
    if len(signature(part.unpack).parameters) <= len(("self", "body", "n")):  # times have one type
        return TOLERANT_TIME_CHECKS if registry.is_tolerant(part) else TIME_CHECKS
    if not registry.is_lossy(part):
        return VALUE_CHECKS
    return LOSSY_CHECKS if registry.keeps_eps(part) else RELATIVE_CHECKS


def _made(make: Callable[..., Any]) -> Any:
    """A codec of a function that may want a bound or a tolerance. Raises TypeError."""
    for setting in ((), (0.5,), (10**6,)):
        with contextlib.suppress(TypeError, ValueError):
            return make(*setting)
    raise TypeError(f"{make} makes no codec, neither of nothing nor of a bound")


def value_codecs() -> list[str]:
    """Names of all registered codecs of values that are lossless."""
    return _names_of(registry.VALUE_CODECS, lambda part: not registry.is_lossy(part))


def lossy_codecs() -> list[str]:
    """Names of all registered codecs of values that keep an absolute bound."""
    return _names_of(registry.VALUE_CODECS, registry.keeps_eps)


def relative_codecs() -> list[str]:
    """Names of all registered codecs of values that keep a bound relative to each value."""
    return _names_of(
        registry.VALUE_CODECS, lambda part: registry.is_lossy(part) and not registry.keeps_eps(part)
    )


def time_codecs() -> list[str]:
    """Names of all registered codecs of times that are exact, and decode alone."""
    return _names_of(
        registry.TIME_CODECS, lambda part: not (registry.is_tolerant(part) or registry.refers(part))
    )


def tolerant_time_codecs() -> list[str]:
    """Names of all registered codecs of times with a tolerance."""
    return _names_of(registry.TIME_CODECS, registry.is_tolerant)


def _names_of(family: Registry, wanted: Callable[[Any], bool]) -> list[str]:
    return [name for name in family.names() if wanted(family.load(name))]


def damages(payload: bytes, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """What can happen to bytes on a disk: ``(name, bytes)``, each different from the payload."""
    rng = np.random.default_rng(seed)
    for size in sorted({0, 1, 4, 5, len(payload) // 2, len(payload) - 1} - {len(payload)}):
        yield f"cut to {size} bytes", payload[:size]
    yield "a byte more", payload + b"\0"
    yield "twice", payload * 2
    yield "zeros", bytes(len(payload))
    for _ in range(200):
        damaged = bytearray(payload)
        place = int(rng.integers(len(payload)))
        damaged[place] ^= 1 << int(rng.integers(8))
        yield f"bit flipped in byte {place}", bytes(damaged)
    for _ in range(100):
        size = int(rng.integers(1, 200))
        yield f"{size} random bytes", rng.bytes(size)


def _encode(codec: ValueCodec, values: Array) -> bytes | None:
    try:
        return codec.encode(values)
    except Unfit:
        return None


def _returns(codec: ValueCodec, values: Array, name: str) -> bool:
    """Whether the codec took the values; AssertionError where it gives back others."""
    payload = _encode(codec, values)
    if payload is None:
        return False
    decoded = codec.decode(payload, values.size, values.dtype)
    assert same_bits(decoded, values), f"{codec}: {name} came back different"
    return True


def _is_near(codec: LossyCodec, values: Array, name: str) -> bool:
    """Whether the codec took the values; AssertionError where one comes back further away than the bound."""
    payload = _encode(codec, values)
    if payload is None:
        return False
    decoded = codec.decode(payload, values.size, values.dtype)
    assert (decoded.dtype, decoded.shape) == (values.dtype, values.shape), f"{codec}: {name} changes shape"
    assert keeps_bound(decoded, values, codec.eps), f"{codec}: {name} passes the bound"
    return True


def _refuses_setting(make: Callable[[Any], Any], setting: float) -> None:
    try:
        made = make(setting)
    except ValueError:
        return
    raise AssertionError(f"{made}: no such bound can be kept")


def _finite_extremes() -> Iterator[tuple[str, Array]]:
    rng = np.random.default_rng(0)
    for name in ("f32", "f64"):
        dtype = numpy_dtype(name)
        info = np.finfo(dtype)
        sizes = {"huge": float(info.max), "tiny": float(info.tiny), "large": 1e9, "common": 25.0}
        for size, largest in sizes.items():
            values = ((rng.random(200) * 2 - 1) * largest).astype(dtype)
            values[::10], values[5] = -0.0, largest
            yield f"{name} {size}", values
        yield f"{name} subnormal", (rng.integers(-9, 9, 200) * float(info.smallest_subnormal)).astype(dtype)


def _first_kept(codec: ValueCodec) -> Array:
    samples = [values for _, values in value_samples(n=100)]
    for values in sorted(samples, key=lambda v: v.dtype.itemsize not in (2, 4)):
        if _encode(codec, values) is not None:
            return values
    raise AssertionError(f"{codec} refuses every sample")


def _refuses(decode: Callable[[], object], name: str) -> None:
    tracemalloc.start()
    try:
        decode()
    except CorruptionError:
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < MEMORY_MAX, f"{name}: {peak} bytes taken for bytes that are nonsense"
        return
    finally:
        tracemalloc.stop()
    raise AssertionError(f"{name}: decoded as if nothing had happened")
