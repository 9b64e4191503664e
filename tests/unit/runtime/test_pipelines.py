"""Pipelines that change while the plant runs: a replay of the journal changes them at the same place."""

from __future__ import annotations

import asyncio
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from headrace.core.clock import NS, VirtualClock
from headrace.core.config import parse_plant
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, StorageError
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.journal_reader import read_records
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.reader import open_store
from headrace.testing.plants import hand_fed_plant

T0 = 1_767_225_600 * NS
PATHS = [f"plant/hall/line/d{i}" for i in range(8)]


def tens(agg="mean", every="10s", write="{parent}/{signal}_{agg}_10s"):
    return FlowSpec("tens", "**", ({"op": "window", "every": every, "agg": [agg]},), write)


def text_of(*specs, flush="1h"):
    lines = [f'[store]\nflush_interval = "{flush}"']
    for spec in specs:
        steps = ", ".join(
            "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in step.items()) + " }" for step in spec.steps
        )
        lines.append(
            f'[pipelines.{spec.name}]\nread = "{spec.read}"\nsteps = [{steps}]\nwrite = "{spec.write}"'
        )
    return "\n".join(lines)


class Feeder:
    """Feeds a plant with seeded frames, a second a step."""

    def __init__(self, plant, hand, clock):
        self.plant, self.hand, self.clock = plant, hand, clock
        self.rng = np.random.default_rng(3)
        self.slots = hand.define(PATHS)

    async def seconds(self, n):
        for _ in range(n):
            self.clock.advance(1.0)
            await asyncio.sleep(0)
            now_ns = self.clock.now_ns()
            await self.hand.emit(self.slots, now_ns, self.rng.normal(size=(len(PATHS), 2)))
            self.plant.intake.core.tick()
        await self.plant.intake.drain()
        self.plant._host.engine.wait_processed(self.plant._host.delivered_seq, 20)


async def started(folder, text):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(folder, text, clock=clock)
    await plant.start()
    return plant, hand, clock


def derived(folder: Path):
    """Every derived sample of a store, the newest version of each."""
    rows = open_store(folder / "store").query("plant/**", from_="2000-01-01", to="2100-01-01").to_rows()
    return sorted((r["path"], int(r["ts"]), r["value"]) for r in rows if "_" in r["path"].rpartition("/")[2])


async def cut(plant, folder, copy):
    """The store as a power cut leaves it now."""
    await plant.intake.drain()
    shutil.copytree(folder, copy)


CHANGES = [
    [tens(), FlowSpec("half", "**/a", ({"op": "scale", "factor": 0.5},), "{parent}/{signal}_half")],
    [tens("max")],
    [],
    [
        tens("max"),
        FlowSpec(
            "other", "**/b", ({"op": "window", "every": "5s", "agg": ["count"]},), "{parent}/{signal}_n"
        ),
    ],
]


async def test_a_replay_changes_pipelines_where_they_were_changed(tmp_path):
    """Feed, change, feed, ...; a copy that was cut off and replays everything ends with the same derived samples."""
    live, copy = tmp_path / "live", tmp_path / "copy"
    live.mkdir()
    plant, hand, clock = await started(live, text_of(tens()))
    feeder = Feeder(plant, hand, clock)
    await feeder.seconds(23)
    for specs in CHANGES:
        plant._host.reflow(specs)
        await feeder.seconds(17)
    await cut(plant, live, copy)
    await plant.stop()
    expected = derived(live)
    assert {path.rpartition("/")[2] for path, *_ in expected} == {
        "a_mean_10s", "b_mean_10s", "a_half", "a_max_10s", "b_max_10s", "b_n",
    }  # fmt: skip
    assert any("a_half" in path for path, *_ in expected)
    again, _, _ = await started(copy, text_of(*CHANGES[-1]))
    assert again._host.recovered.replay.n_records > 80
    await again.stop()
    assert derived(copy) == expected


async def test_snapshots_in_between_say_which_pipelines_they_were_taken_under(tmp_path):
    live, copy = tmp_path / "live", tmp_path / "copy"
    live.mkdir()
    plant, hand, clock = await started(live, text_of(tens()))
    feeder = Feeder(plant, hand, clock)
    await feeder.seconds(13)
    plant._host.engine.flush(20)
    await feeder.seconds(4)
    plant._host.reflow([tens("max")])
    await feeder.seconds(6)
    plant._host.engine.flush(20)
    await feeder.seconds(4)
    plant._host.reflow([tens("max"), CHANGES[0][1]])
    await feeder.seconds(8)
    await cut(plant, live, copy)
    await plant.stop()
    again, _, _ = await started(copy, text_of(tens("max"), CHANGES[0][1]))
    await again.stop()
    assert derived(copy) == derived(live)


async def test_a_file_that_was_changed_while_the_plant_stood_still_counts_from_the_start_on(tmp_path):
    """What the journal holds is replayed by the pipelines of its time; then the new ones are put in force."""
    live, copy = tmp_path / "live", tmp_path / "copy"
    live.mkdir()
    plant, hand, clock = await started(live, text_of(tens()))
    await Feeder(plant, hand, clock).seconds(25)
    await cut(plant, live, copy)
    await plant.stop()
    again, _, _ = await started(copy, text_of(tens("max")))
    kinds = [r for r in read_records(LocalDisk(copy / "store"), None) if r.kind is RecordKind.CONFIG]
    await again.intake.drain()
    await again.stop()
    before = [row for row in derived(live) if "_mean_" in row[0]]
    assert [row for row in derived(copy) if "_mean_" in row[0]] == before
    assert len(before) > 0
    assert len(kinds) >= 1


async def test_pipelines_that_stay_the_same_keep_their_windows(tmp_path):
    plant, hand, clock = await started(tmp_path, text_of(tens("count")))
    feeder = Feeder(plant, hand, clock)
    await feeder.seconds(5)
    plant._host.reflow([CHANGES[0][1], tens("count")])
    await feeder.seconds(4)
    plant._host.reflow([tens("count", write="{parent}/{signal}_{agg}_moved")])
    await feeder.seconds(14)
    await plant.stop()
    rows = derived(tmp_path)
    moved = {path: value for path, ts, value in rows if "_count_moved" in path and ts == T0}
    assert set(moved.values()) == {9.0}, "the open window went on over both changes"
    assert len(moved) == 16


async def test_a_pipeline_whose_names_are_taken_changes_nothing(tmp_path):
    plant, hand, clock = await started(tmp_path, text_of(tens("count")))
    feeder = Feeder(plant, hand, clock)
    await feeder.seconds(2)
    hand.define(["plant/hall/line/d0"], columns=("a", "b", "a_half"))
    watchers = list(plant.directory.watchers)
    with pytest.raises(ConfigError, match="a sensor that is there already"):
        plant._host.reflow([CHANGES[0][1]])
    assert plant.directory.watchers == watchers
    assert [flow.spec.name for flow in plant._host._flows] == ["tens"]
    await feeder.seconds(12)
    await plant.stop()
    assert any("_count_10s" in path for path, *_ in derived(tmp_path))


async def test_a_journal_that_refuses_changes_nothing(tmp_path, monkeypatch):
    plant, _, _ = await started(tmp_path, text_of(tens("count")))

    def refuse(*_):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(plant.journal, "append", refuse)
        with pytest.raises(StorageError):
            plant._host.reflow([])
    assert [flow.spec.name for flow in plant._host._flows] == ["tens"]
    await plant.stop()


def test_specs_as_data(tmp_path):
    spec = tens()
    assert FlowSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    (tmp_path / "mine.py").write_text("def twice(batch):\n    return batch.with_values(batch.values * 2)\n")
    mapped = FlowSpec(
        "m", "**", ({"op": "map", "call": "mine:twice"},), "{parent}/{signal}_twice", str(tmp_path)
    )
    assert FlowSpec.from_dict(mapped.to_dict()) == mapped
    assert "folder" not in FlowSpec("tens", spec.read, spec.steps, spec.write, str(tmp_path)).to_dict()
    assert parse_plant({"version": 1, **tomllib.loads(text_of(spec))}, Path()).pipelines["tens"].read == "**"
