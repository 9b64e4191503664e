"""An hour of a simulated factory into a store, then questions to it.

    uv run python examples/store_and_query.py

The fleet gives columns, the pipe takes them the way a running plant would: normalised, journalled, put in order,
windowed, encoded, committed. Then any other process may read the folder.
"""

import tempfile
from pathlib import Path

from headrace import open_store
from headrace.core.clock import NS, VirtualClock
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.pipe import Pipe
from headrace.sim.batches import FleetSlots
from headrace.sim.fleet import Fleet

HOUR_S = 3_600
START_NS = 1_772_438_400 * NS  # Monday, 2 March 2026, 08:00 UTC

MINUTES = FlowSpec(
    name="minutes",
    read="**/temperature",
    steps=({"op": "window", "every": "1m", "agg": ["mean", "max"]},),
    write="{parent}/{signal}_{agg}_1m",
)


def fill(folder: Path) -> None:
    fleet = Fleet(n_sensors=200, seed=7)
    clock = VirtualClock(START_NS)
    pipe = Pipe(folder, [MINUTES], clock)
    slots = FleetSlots(fleet, pipe.directory)
    for second in range(0, HOUR_S, 60):
        from_ns = START_NS + second * NS
        for frames in fleet.frames(from_ns, from_ns + 60 * NS):
            pipe.offer(slots.batch(frames, arrival_ns=clock.now_ns(), origin="fleet"))
        for _ in range(60):
            clock.advance(1.0)
            pipe.tick()
    pipe.drain()
    pipe.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        fill(folder)
        store = open_store(folder)

        ovens = store.query("**/oven*/temperature", last="1h", every="10m", agg=["mean", "max"])
        print("ten-minute means and maxima of all ovens, as Polars:")
        print(ovens.to_polars().head(6))

        derived = store.query("**/temperature_mean_1m", last="5m")
        print(f"\nthe pipeline wrote {derived.n_rows} one-minute means in the last five minutes")

        counts = store.query("**", last="1h", agg=["count"]).to_duckdb()
        print("\nmost samples of any sensor, asked in SQL of DuckDB:")
        print(counts.query("rows", "SELECT path, count FROM rows ORDER BY count DESC, path LIMIT 3"))

        size = sum(f.stat().st_size for f in (folder / "segments").rglob("*.parquet"))
        status = store.status()
        print(
            f"\n{status['samples']:,} samples take {size:,} bytes: {size / status['samples']:.2f} bytes a sample"
        )


if __name__ == "__main__":
    main()
