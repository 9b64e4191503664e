"""Four hundred simulated devices of ten sines each, every 25 ms; beside it the model of their signals alone, at that pace.

The model stands for the devices and what parses their answers: what is left is what the adapter adds to values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.adapters.base import Adapter
from headrace.adapters.sim.adapter import SimAdapter
from headrace.adapters.sim.config import SimConfig
from headrace.adapters.sim.simulator import SignalModel
from headrace.bench.traffic.base import FACTS, Count
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory

_DEVICES, _SIGNALS, _TICKS, _SLICE = 400, 10, 80, 5
_INTERVAL_MS = 25
_START_NS = 1_800_000_000 * NS


class SimTraffic:
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "sim"
    n_samples = _DEVICES * _SIGNALS * _TICKS
    n_feeds = 3
    reference = "the model of the signals, whose values are thrown away"
    libraries: ClassVar[Mapping[str, str]] = {}

    async def up(self) -> None:
        """Nothing to start: it has no peer."""

    async def down(self) -> None:
        """Nothing to end."""

    def adapter(self, n_feeds: int = 1) -> Adapter:
        return _adapter(_DEVICES, _SIGNALS)

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        """Nobody sends: it goes by the clock."""

    async def bare(self, count: Count) -> None:
        clock, interval_ns = SystemClock(), _INTERVAL_MS * 1_000_000
        tick = _model(_DEVICES, _SIGNALS)
        while not count.complete.is_set():
            await clock.sleep((interval_ns - clock.now_ns() % interval_ns) / NS)
            count.add(tick(clock.now_ns()).size)

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        shape = (_DEVICES, _SIGNALS) if is_batched else (_DEVICES * _SIGNALS, 1)
        times_ns = [_START_NS + i * _INTERVAL_MS * 1_000_000 for i in range(_SLICE)]
        return [(shape, ts_ns) for ts_ns in times_ns], _DEVICES * _SIGNALS * _SLICE

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        adapter = _adapter(*payloads[0][0])
        slots = adapter.define(directory)
        return lambda: [adapter.batches(ts_ns, slots) for _, ts_ns in payloads]

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        tick = _model(*payloads[0][0])
        return lambda: [tick(ts_ns) for _, ts_ns in payloads]


def _config(n_devices: int, n_signals: int) -> SimConfig:
    config = {
        "protocol": "sim", "path": "bench/line/oven{n}", "count": n_devices, "interval": f"{_INTERVAL_MS}ms",
        "signals": {f"t{k}": {"mean": 20.0 + k, "amplitude": 5.0, "period": "1m"} for k in range(n_signals)},
    }  # fmt: skip
    return validate_section(SimAdapter.Config, config, "adapters.sim")


def _adapter(n_devices: int, n_signals: int) -> SimAdapter:
    return SimAdapter.from_config("sim", _config(n_devices, n_signals), {}, FACTS)


def _model(n_devices: int, n_signals: int) -> Callable[[int], npt.NDArray[np.float64]]:
    model = SignalModel(1, n_devices, tuple(_config(n_devices, n_signals).signals.values()))
    return lambda ts_ns: model.values(ts_ns, ts_ns // (_INTERVAL_MS * 1_000_000))
