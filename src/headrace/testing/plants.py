"""A whole plant in this process, fed by hand: what it takes in is what a test hands it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from headrace.adapters.base import Ack, AdapterDiagnostics, AdapterState, PlantFacts, Sink
from headrace.core.clock import Clock, VirtualClock
from headrace.core.config import parse_plant
from headrace.core.events import Reject, RejectCode
from headrace.core.faults import FaultPoints
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.runtime.assemble import Blueprint, Plant, check_plant, host_settings
from headrace.runtime.host import HostSettings


class HandFed:
    """An adapter that emits what it is handed, under the rules of `headrace.adapters.base`.

    ``n_acked`` counts the batches and rejects that were acknowledged.
    """

    Config: ClassVar[type[Any]] = dict

    def __init__(self, name: str = "hand") -> None:
        self.name = name
        self.state = AdapterState.STARTING
        self.n_acked = self.n_samples = self.n_rejects = 0
        self._sink: Sink | None = None

    @classmethod
    def from_config(cls, name: str, config: Any, profiles: Any, plant: PlantFacts) -> Self:
        """It has no configuration."""
        return cls(name)

    @property
    def sink(self) -> Sink:
        """Where it emits to, once started."""
        assert self._sink is not None
        return self._sink

    async def start(self, sink: Sink) -> None:
        """Begin."""
        self._sink, self.state = sink, AdapterState.CONNECTED

    async def stop(self) -> None:
        """End."""
        self.state = AdapterState.STOPPED

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts."""
        return AdapterDiagnostics(
            self.name, "hand", self.state, n_samples=self.n_samples, n_rejects=self.n_rejects
        )

    # --- feeding -------------------------------------------------------------------------------------

    def define(self, paths: list[str], dtype: str = "f64", columns: tuple[str, ...] = ("a", "b")) -> Any:
        """Groups of one layout: slots, uint32[n]."""
        layout = Layout(dtype, tuple(Column(name) for name in columns))
        return self.sink.directory.define_many(paths, layout)

    async def emit(
        self, slots: npt.NDArray[np.uint32], ts_ns: npt.ArrayLike, values: npt.ArrayLike
    ) -> FrameBatch:
        """Emit dense frames, one a slot and time: `values` are [n, D] in the layout's type."""
        times = np.broadcast_to(np.asarray(ts_ns, np.int64), slots.shape).copy()
        batch = FrameBatch.dense(slots, times, np.asarray(values)).with_(origin=self.name)
        await self.hand_on(batch)
        return batch

    async def hand_on(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Emit any batch."""
        self.n_samples += batch.n_samples
        await self.sink.emit(batch, ack or self._acked)

    async def reject(self, n_samples: int = 1, raw: bytes = b"?") -> None:
        """Emit input that could not be decoded."""
        self.n_rejects += 1
        reject = Reject(RejectCode.MALFORMED, self.name, "hand", "not a number", raw, n_samples=n_samples)
        await self.sink.reject(reject, self._acked)

    def _acked(self) -> None:
        self.n_acked += 1


def hand_fed_plant(
    folder: Path,
    text: str = "",
    *,
    clock: Clock | None = None,
    faults: FaultPoints | None = None,
    settings: HostSettings | None = None,
) -> tuple[Plant, HandFed]:
    """A plant whose one adapter is fed by hand, not started. Its store is ``folder/store``.

    Parameters
    ----------
    text : the rest of its plant file: pipelines, bounds. clock : default: one that only moves when told.
    """
    config = parse_plant({"version": 1, **tomllib.loads(text)}, folder)
    checked, adapter = check_plant(config), HandFed()
    blueprint = Blueprint(config, {adapter.name: adapter}, checked.flows)
    return Plant(
        blueprint,
        clock=clock or VirtualClock(1_767_225_600_000_000_000),
        faults=faults or FaultPoints(),
        settings=settings or host_settings(config),
    ), adapter
