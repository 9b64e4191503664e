"""A disk that refuses while a plant runs: sources are slowed, it is said, and it goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
from pathlib import Path

from headrace.cli.exits import Exit


def fill(file: Path) -> None:
    """Write until there is no space left."""
    with file.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(1 << 12))


async def test_a_full_disk_slows_the_sources_until_there_is_space_again(mqtt_plant, small_disk):
    plant, headrace = mqtt_plant, mqtt_plant.headrace
    headrace.store = small_disk / "store"
    plant.write(flush_interval="2s")
    await plant.up("--set", f"store.url={headrace.store}")
    await plant.publish(200)
    await plant.all_there()
    fill(small_disk / "filler")
    # The broker takes these; the plant must not acknowledge what it can't keep.
    await plant.publish(3_000, pad=20)
    refusal = await plant.until(lambda: headrace.status()["journal"]["refusal"])
    # Which it meets first is a matter of moments: the write that fails, or the reserve that is used up.
    assert str(headrace.store) in refusal or "are free on the disk, which the store needs" in refusal
    assert "free some space" in refusal
    assert headrace.status()["state"] == "running"
    await plant.until(lambda: "free some space" in headrace.said)
    assert headrace.status()["samples"]["received"] < 200 + 3_000 * 21
    (small_disk / "filler").unlink()
    await plant.until(lambda: not headrace.status()["journal"]["refusal"])
    await plant.all_there()
    assert await asyncio.to_thread(headrace.stop) == Exit.DONE
    assert plant.counts() == list(range(3_200))


async def test_a_stop_with_a_full_disk_ends_in_time_and_the_next_start_has_everything(mqtt_plant, small_disk):
    plant, headrace = mqtt_plant, mqtt_plant.headrace
    headrace.store = small_disk / "store"
    at = ("--set", f"store.url={headrace.store}")
    await plant.up(*at)
    await plant.publish(200)
    await plant.all_there()
    fill(small_disk / "filler")
    await plant.publish(1_000, pad=20)
    await plant.until(lambda: headrace.status()["journal"]["refusal"])
    assert await asyncio.to_thread(headrace.stop, 10.0) == Exit.DONE
    assert "it was not acknowledged" in headrace.said
    code, said = await asyncio.to_thread(headrace.run, *at)
    assert code == Exit.FAILED
    assert "the disk is full; free some space" in said
    (small_disk / "filler").unlink()
    await plant.up(*at)
    await plant.all_there()
    assert await asyncio.to_thread(headrace.stop) == Exit.DONE


async def test_a_limit_of_file_size_is_said_and_nothing_is_lost(mqtt_plant):
    plant, headrace = mqtt_plant, mqtt_plant.headrace
    await plant.up()
    resource.prlimit(headrace.pid, resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
    await plant.publish(6_000, pad=10)
    refusal = await plant.until(lambda: headrace.status()["journal"]["refusal"])
    assert str(headrace.store / "journal") in refusal
    assert "the file-size limit of this process is reached; raise it (ulimit -f)" in refusal
    assert headrace.status()["state"] == "running"
    resource.prlimit(headrace.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await plant.all_there()
    assert not headrace.status()["journal"]["refusal"]
    assert await asyncio.to_thread(headrace.stop) == Exit.DONE
    assert plant.counts() == list(range(6_000))


async def test_a_journal_at_its_bound_holds_the_sources_back_instead_of_growing(mqtt_plant):
    plant, headrace = mqtt_plant, mqtt_plant.headrace
    plant.write(flush_interval="2s", journal_size="1MB")
    await plant.up()
    await plant.publish(100)
    await plant.all_there()
    # The store can't write: something else stands where its segments go.
    segments = headrace.store / "segments"
    await plant.until(segments.is_dir)
    shutil.move(segments, headrace.folder / "aside")
    segments.write_text("in the way")
    await plant.publish(20_000, pad=20)
    refusal = await plant.until(lambda: headrace.status()["journal"]["refusal"])
    assert "the journal has reached its bound" in refusal
    assert str(segments) in await plant.until(lambda: headrace.status()["store"].get("problem"))
    assert headrace.status()["journal"]["size_bytes"] < 3_000_000
    assert headrace.status()["samples"]["received"] < 20_000 * 21
    segments.unlink()
    shutil.move(headrace.folder / "aside", segments)
    await plant.all_there()
    await plant.until(lambda: headrace.status()["journal"]["size_bytes"] < 1_000_000)
    assert await asyncio.to_thread(headrace.stop) == Exit.DONE
