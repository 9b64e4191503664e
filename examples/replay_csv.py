"""A CSV file played through a whole plant: plant.toml, journal, pipeline, store, query.

    uv run python examples/replay_csv.py

The same plant file works with `headrace check plant.toml` and `headrace run plant.toml`.
"""

import asyncio
import math
import tempfile
from pathlib import Path

from headrace import open_store
from headrace.adapters.base import AdapterState
from headrace.core.clock import SystemClock
from headrace.core.config import load_plant
from headrace.runtime.assemble import build_plant

PLANT = """
version = 1

[store]
url = "./store"

[adapters.oven_log]
protocol = "replay"
files = "oven1.csv"
path = "leon/paint/line1/oven1/{key}"
time = "timestamp"

[pipelines.minutes]
read = "leon/paint/**/inlet"
steps = [{ op = "window", every = "1m", agg = ["mean", "max"] }]
write = "{parent}/{signal}_{agg}_1m"
"""


def write_files(folder: Path) -> Path:
    rows = ["timestamp,inlet,outlet"]
    for second in range(900):
        inlet = 180.0 + 4.0 * math.sin(second / 60.0)
        rows.append(f"2026-03-02T06:{second // 60:02d}:{second % 60:02d}Z,{inlet:.1f},{inlet - 12.5:.1f}")
    (folder / "oven1.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    plant = folder / "plant.toml"
    plant.write_text(PLANT, encoding="utf-8")
    return plant


async def play(file: Path) -> dict[str, object]:
    clock = SystemClock()
    plant = build_plant(load_plant(file), clock=clock)
    await plant.start()
    while plant.adapters()[0].state is not AdapterState.STOPPED:
        await clock.sleep(0.05)
    await plant.stop()
    return plant.summary()


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        file = write_files(Path(temporary))
        summary = asyncio.run(play(file))
        print({name: summary[name] for name in ("received", "stored", "derived", "duplicates", "rejected")})

        store = open_store(file)
        raw = store.query("**/oven1/*let", from_="2026-03-02T06:00Z", to="2026-03-02T06:00:03Z")
        print(raw.to_csv().decode())
        minutes = store.query("**/inlet_{mean,max}_1m", from_="2026-03-02T06:00Z", to="2026-03-02T06:03Z")
        for row in minutes.to_rows():
            print(f"{row['path']}: {row['value']:.3f}")

        again = asyncio.run(play(file))
        print(f"played once more: {again['stored']} stored, {again['duplicates']} recognised as duplicates")


if __name__ == "__main__":
    main()
