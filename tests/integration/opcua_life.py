"""An OPC UA adapter at a simulated server, and all that came of it."""

from pathlib import Path

import numpy as np

from headrace.adapters.base import PlantFacts
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.pacing import ConnectPacer
from headrace.core.frames import Shape
from headrace.core.problems import validate_section
from headrace.core.settings import SignalSettings
from headrace.testing.adapters import RecordingSink, until


def profile_of(plant, signals):
    """Signals by name: an address, None for that of the plant's variable of the same name, or settings."""
    return {
        name: one if isinstance(one, SignalSettings) else SignalSettings(address=one or plant.address(name))
        for name, one in signals.items()
    }


def adapter_of(plant, signals, devices=None, others=None, **config):
    """`others`: more profiles, by name."""
    config = {
        "protocol": "opcua", "profile": "p", "interval": "20ms", "reconnect_first": "20ms", "reconnect_most": "100ms",
        "devices": devices or {"l/d": plant.url(timeout="500ms")}, **config,
    }  # fmt: skip
    profiles = {name: profile_of(plant, some) for name, some in {"p": signals, **(others or {})}.items()}
    folder = config.pop("folder", None)
    pacer = config.pop("pacer", None) or ConnectPacer()
    settings = validate_section(OpcuaAdapter.Config, config, "adapters.x")
    facts = PlantFacts(folder=Path() if folder is None else folder, pacer=pacer)
    return OpcuaAdapter.from_config("x", settings, profiles, facts)


def samples(sink):
    """(path, ts_ns, value, quality) of all that came; texts as texts."""
    found = []
    for batch in sink.batches:
        batch.check_columns()
        marks = np.zeros(batch.values.shape, np.uint8) if batch.quality is None else batch.quality
        slots = np.repeat(batch.slot, batch.width if batch.shape is Shape.DENSE else np.diff(batch.start))
        columns = np.tile(np.arange(batch.width), batch.n_frames) if batch.column is None else batch.column
        rows = zip(
            sink.directory.sensor_paths(slots, columns.astype(np.uint16)), batch.value_times().tolist(),
            batch.values.reshape(-1).tolist(), marks.reshape(-1).tolist(), strict=True,
        )  # fmt: skip
        found += [
            (path, ts, batch.dictionary[value] if batch.dictionary else value, mark)
            for path, ts, value, mark in rows
        ]
    return found


def latest(sink):
    return {path: (value, quality) for path, _, value, quality in samples(sink)}


class Life:
    """A started adapter with its sink, stopped at the end."""

    def __init__(self, adapter, sink=None):
        self.adapter, self.sink = adapter, sink or RecordingSink()

    async def __aenter__(self):
        await self.adapter.start(self.sink)
        return self

    async def __aexit__(self, *error):
        self.sink.set_credit(True)
        await self.adapter.stop()

    @property
    def state(self):
        return self.adapter.diagnostics().state

    @property
    def reason(self):
        return self.adapter.diagnostics().reason

    async def value(self, path, wanted):
        await until(lambda: latest(self.sink).get(path, (None,))[0] == wanted, f"{path} is {wanted}")
