"""What can be wrong around a plant: a plain sentence that says what and where, and nothing is lost."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.exits import Exit

# Each test starts processes; where kernels are not cached yet they compile them first.

IDLE = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[profiles.oven]
temperature = {{ address = "holding:0:U16" }}
[adapters.ovens]
protocol = "modbus"
profile = "oven"
interval = "100ms"
[adapters.ovens.devices]
"bench/hall/oven" = "modbus+tcp://127.0.0.1:{port}?unit=1"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_idle(headrace: Any, port: int = 0, **changes: str) -> None:
    """A plant whose one device is away."""
    text = IDLE.format(port=port or free_port())
    for old, new in changes.items():
        text = text.replace(old, new)
    (headrace.folder / "plant.toml").write_text(text)


def only_line(said: str) -> str:
    """The sentence that a command ended with; warnings and tracebacks would be more."""
    lines = [line for line in said.splitlines() if line.startswith("headrace: ")]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    return lines[0]


# --- before anything starts ------------------------------------------------------------------------------


def test_a_bad_plant_file_is_told_with_key_and_remedy(headrace):
    write_idle(headrace, interval="intervall")
    code, said = headrace.run()
    assert code == Exit.CONFIG
    assert "adapters.ovens.intervall" in only_line(said)
    assert "interval" in only_line(said)
    assert not headrace.store.exists()


def test_a_port_in_use_is_told_with_its_number(headrace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        write_idle(headrace)
        code, said = headrace.run("--set", f"api.listen=127.0.0.1:{port}", web=True)
    assert code == Exit.CONFIG
    assert f"port {port} of 127.0.0.1 is in use" in only_line(said)
    assert not headrace.store.exists()


def test_a_store_that_another_process_uses_is_told_with_its_number_and_left_alone(headrace, ask):
    write_idle(headrace)
    headrace.start()
    headrace.up()
    code, _, said = ask("run", headrace.folder / "plant.toml")
    assert code == Exit.FAILED
    assert f"is in use by process {headrace.pid}; stop it first, or choose another store" in only_line(said)
    assert headrace.status()["state"] == "running"
    assert headrace.stop() == Exit.DONE


def test_a_file_in_the_place_of_the_store_is_told(headrace):
    write_idle(headrace)
    headrace.store.write_text("not a folder")
    code, said = headrace.run()
    assert code == Exit.FAILED
    assert str(headrace.store) in only_line(said)
    assert headrace.store.read_text() == "not a folder"


def test_a_read_only_store_is_told_and_stays_as_it_is(headrace):
    write_idle(headrace)
    headrace.start()
    headrace.up()
    assert headrace.stop() == Exit.DONE
    before = sorted(str(p) for p in headrace.store.rglob("*"))
    mounted = subprocess.run(
        f"mount --bind '{headrace.store}' '{headrace.store}' && mount -o remount,ro,bind '{headrace.store}'",
        shell=True, capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no folder can be mounted read-only here: {mounted.stderr.decode().strip()}")
    try:
        code, said = headrace.run()
    finally:
        subprocess.run(["umount", "-l", str(headrace.store)], check=True)
    assert code == Exit.FAILED
    assert (
        f"{headrace.store}: the file system is read-only; remount it or choose another folder"
        in only_line(said)
    )
    assert sorted(str(p) for p in headrace.store.rglob("*")) == before


# --- peers that are away ---------------------------------------------------------------------------------


async def test_a_device_that_is_away_at_the_start_is_polled_when_it_comes(headrace):
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    port = free_port()
    write_idle(headrace, port)
    headrace.start()
    await asyncio.to_thread(headrace.up)
    away = await asyncio.to_thread(
        headrace.until, lambda: headrace.adapter()["state"] == "backoff" and headrace.adapter()
    )
    assert f"127.0.0.1:{port}" in away["reason"] or "refused" in away["reason"]
    registers = SimData(0, count=10, values=7, datatype=DataType.REGISTERS)
    server = ModbusTcpServer(context=SimDevice(1, [registers]), address=("127.0.0.1", port))
    await server.listen()
    try:
        await asyncio.to_thread(headrace.until, lambda: headrace.status()["samples"]["stored"] > 5)
        assert (await asyncio.to_thread(headrace.adapter))["state"] == "connected"
        assert await asyncio.to_thread(headrace.stop) == Exit.DONE
    finally:
        await server.shutdown()


async def test_a_broker_that_is_away_at_the_start_and_again_later_costs_nothing(mqtt_plant):
    plant, headrace = mqtt_plant, mqtt_plant.headrace
    await plant.client.close()
    await plant.broker.stop()
    headrace.start()
    await asyncio.to_thread(headrace.up)
    away = await plant.until(lambda: headrace.adapter()["state"] == "backoff" and headrace.adapter())
    assert away["reason"]
    await plant.broker.start()
    await plant.until(lambda: headrace.adapter()["state"] == "connected")
    await plant.client.connect(plant.broker.host, plant.broker.port)
    await plant.publish(300)
    await plant.broker.stop()
    await plant.until(lambda: headrace.adapter()["state"] == "backoff")
    await plant.broker.start()
    await plant.publish(300)
    await plant.all_there()
    assert await asyncio.to_thread(headrace.stop) == Exit.DONE


# --- an end by itself ------------------------------------------------------------------------------------


def test_a_store_that_somebody_else_has_taken_over_ends_it_with_a_sentence(headrace):
    write_idle(headrace, **{'url = "./store"': 'url = "./store"\nflush_interval = "1s"'})
    headrace.start()
    headrace.up()
    commits = headrace.until(lambda: sorted(headrace.store.glob("commits/*[1-9]/*.json")))
    folder, newest = commits[-1].parent, int(commits[-1].stem)
    for m in range(newest + 1, newest + 20):
        if not (folder / f"{m:08d}.json").exists():
            (folder / f"{m:08d}.json").write_text("somebody else's")
    assert headrace.wait(30) == Exit.FAILED
    assert f"commits/{folder.name}/" in only_line(headrace.said)


# --- the end ---------------------------------------------------------------------------------------------


async def test_a_stop_drains_within_ten_seconds_into_segments(mqtt_plant):
    plant, headrace = mqtt_plant, mqtt_plant.headrace
    await plant.up()
    await plant.publish(2_000)
    assert await asyncio.to_thread(headrace.stop, 10.0) == Exit.DONE
    # Nothing is left to the journal: without it the store has everything that was acknowledged.
    n_held = len(plant.counts())
    for one in headrace.store.glob("journal/*/*.hrj"):
        one.unlink()
    assert plant.counts() == list(range(n_held))


async def test_what_was_acknowledged_survives_a_kill(mqtt_plant):
    plant, headrace = mqtt_plant, mqtt_plant.headrace
    await plant.up()
    for _ in range(3):
        await plant.publish(500)
        headrace.kill()
        await plant.publish(200)
        await plant.up()
    await plant.all_there()
    samples = (await asyncio.to_thread(headrace.status))["samples"]
    assert (
        samples["received"]
        == samples["stored"] + samples["duplicates"] + samples["rejected"] + samples["thinned"]
    )
    assert await asyncio.to_thread(headrace.stop) == Exit.DONE
    assert plant.counts() == list(range(2_100))


def test_a_second_signal_ends_it_at_once(headrace):
    write_idle(headrace)
    headrace.start(web=True)
    headrace.up()
    headrace.process.send_signal(15)
    headrace.process.send_signal(2)
    assert headrace.wait(10.0) in (0, -2, -15)


def test_the_folder_of_the_store_may_be_made_by_the_run(headrace):
    write_idle(headrace, **{"./store": "./a/b/store"})
    headrace.store = Path(headrace.folder / "a/b/store")
    headrace.start()
    headrace.up()
    assert headrace.stop() == Exit.DONE
