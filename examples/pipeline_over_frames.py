"""A pipeline over frames in memory: no files, no threads, no clock.

    uv run python examples/pipeline_over_frames.py

A shard is a pure state machine: batches of frames and ticks go in, derived frames come out. What runs here is
what a running plant runs, so a pipeline can be tried, tested and debugged in a few lines.
"""

import numpy as np

from headrace.core.clock import NS
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import Tick
from headrace.pipeline.flows import Flow, FlowShard, FlowSpec
from headrace.pipeline.operators.deduplicate import Deduplicate
from headrace.pipeline.shard import Shard

START_NS = 1_772_438_400 * NS
OVEN = Layout("u16", (Column("temperature", unit="degC", scale=0.1, low=0.0, high=400.0),))
EXCESS = FlowSpec(
    name="excess",
    read="**/temperature",
    steps=(
        {"op": "scale", "add": -180.0},  # degrees above the set point
        {"op": "range", "min": -50.0, "max": 50.0},  # what is further off is bad
        {"op": "window", "every": "1m", "agg": ["mean", "max", "count"]},
    ),
    write="{parent}/excess_of_{signal}_{agg}_1m",
)


def main() -> None:
    directory = SensorDirectory(shard_bits=0)
    slot = directory.define("leon/paint/line1/oven1", OVEN)
    flow = Flow(EXCESS, directory)
    flow.extend()
    shard = Shard(0, Deduplicate(directory, 0), {EXCESS.name: FlowShard(flow, 0)})

    seconds = np.arange(300)
    degrees = 182.0 + 3.0 * np.sin(seconds / 30.0)
    batch = FrameBatch.dense(
        slot=np.full(len(seconds), slot, np.uint32),
        ts_ns=START_NS + seconds * NS,
        values=np.round(degrees / 0.1).astype(np.uint16).reshape(-1, 1),
        arrival_ns=START_NS,
    )
    result = shard.step([batch, Tick(START_NS + 600 * NS)])

    print(f"{batch.n_samples} samples in, {sum(b.n_samples for b in result.derived)} derived samples out:")
    for derived in result.derived:
        for frame in range(derived.n_frames):
            minute = (derived.ts_ns[frame] - START_NS) // (60 * NS)
            columns = directory.layout(int(derived.slot[frame])).columns
            values = [
                f"{column.name} = {value * column.scale + column.offset:.4g}"
                for column, value in zip(columns, derived.values[frame].tolist(), strict=True)
            ]
            print(f"  minute {minute}: {', '.join(values)}")

    again = shard.step([batch])
    print(
        f"the same batch once more: {len(again.accepted)} accepted, {len(again.late)} recognised as seen before"
    )


if __name__ == "__main__":
    main()
