"""The api process beside its engine: it answers, dies, comes back, and ends with the engine."""

import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest
from tests.integration.test_cli import RunningPlant, command, write_plant

# Where kernels are not cached yet, several processes compile them at once.


def ask(address, path, timeout_s=30):
    """Status and body; a connection waits while the child is away."""
    try:
        with urllib.request.urlopen(address + path, timeout=timeout_s) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def children(pid):
    """Processes that `pid` has started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(what, timeout_s=30.0):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    write_plant(folder)
    with RunningPlant(folder) as plant:
        address = plant.address(folder)
        plant.wait_for(
            folder, lambda: json.loads(ask(address, "/api/v1/status")[1])["samples"]["stored"] == 240
        )
        yield plant, folder, address


def test_it_answers_in_a_process_of_its_own(running):
    plant, _, address = running
    assert ask(address, "/livez") == (200, "ok\n")
    assert ask(address, "/readyz") == (200, "ready\n")
    assert "headrace_samples_stored_total 240" in ask(address, "/metrics")[1]
    assert len(children(plant.process.pid)) == 1
    (one,) = json.loads(ask(address, "/api/v1/adapters")[1])
    assert one["name"] == "log"
    assert [d["path"] for d in json.loads(ask(address, "/api/v1/adapters/log")[1])["devices"]] == [
        "oven1.csv"
    ]


def test_what_is_not_there_is_a_problem(running):
    *_, address = running
    status, text = ask(address, "/api/v1/adapters/lag")
    found = json.loads(text)
    assert (status, found["code"], found["status"]) == (404, "not-found", 404)
    assert found["detail"] == "no adapter 'lag'; did you mean 'log'?"
    assert json.loads(ask(address, "/nothing")[1])["code"] == "not-found"


def test_commands_take_the_public_address(running):
    _, _, address = running
    code, out, err = command("status", "-t", address)
    assert (code, err) == (0, "")
    assert f"answers at {address}" in out


def test_a_foreign_host_name_is_refused(running):
    *_, address = running
    request = urllib.request.Request(address + "/api/v1/status", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as e:
        assert (e.code, json.loads(e.read())["code"]) == (403, "forbidden")


def test_a_child_that_was_killed_comes_back_and_callers_only_wait(running):
    plant, _, address = running
    (child,) = children(plant.process.pid)
    os.kill(child, signal.SIGKILL)
    assert ask(address, "/livez") == (200, "ok\n")
    (other,) = until(lambda: [c for c in children(plant.process.pid) if c != child])
    assert other != child
    assert json.loads(ask(address, "/api/v1/status")[1])["samples"]["stored"] == 240


def test_it_ends_with_the_engine(tmp_path):
    write_plant(tmp_path)
    with RunningPlant(tmp_path) as plant:
        ask(plant.address(tmp_path), "/livez")
        (child,) = children(plant.process.pid)
        assert plant.stop()[0] == 0
        assert not is_alive(child)


def test_it_ends_when_the_engine_is_killed(tmp_path):
    write_plant(tmp_path)
    with RunningPlant(tmp_path) as plant:
        ask(plant.address(tmp_path), "/livez")
        (child,) = children(plant.process.pid)
        plant.process.kill()
        until(lambda: not is_alive(child), 10.0)


def test_without_it_the_engine_answers_on_the_public_port(tmp_path):
    write_plant(tmp_path)
    with RunningPlant(tmp_path, "--no-web") as plant:
        address = plant.address(tmp_path)
        assert children(plant.process.pid) == []
        assert ask(address, "/readyz") == (200, "ready\n")
        assert json.loads(ask(address, "/api/v1/status")[1])["state"] == "running"
        assert plant.stop()[0] == 0
