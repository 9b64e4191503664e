"""``headrace new``: what it makes works as it is."""

import json
import os
import subprocess
import sys
import tomllib

import pytest

from headrace.adapters.registry import ADAPTERS
from headrace.cli.exits import Exit
from headrace.cli.main import run_command


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_a_new_plant_is_fine(cwd, capsys, name):
    assert run_command(["new", "plant", "--adapter", name, "--timezone", "Europe/Madrid"]) == Exit.DONE
    assert run_command(["check"]) == Exit.DONE
    text = (cwd / "plant.toml").read_text()
    assert text.startswith("#:schema plant.schema.json\n")
    assert tomllib.loads(text)["plant"]["timezone"] == "Europe/Madrid"
    schema = json.loads((cwd / "plant.schema.json").read_text())
    assert {"plant", "store", "adapters", "pipelines"} <= set(schema["properties"])


def test_several_adapters_and_a_dry_run(cwd, capsys):
    assert run_command(["new", "plant", "--adapter", "modbus", "--adapter", "mqtt", "--dry-run"]) == Exit.DONE
    assert {"ovens", "broker"} <= set(tomllib.loads(capsys.readouterr().out)["adapters"])
    assert list(cwd.iterdir()) == []


def test_a_file_that_is_there_is_kept(cwd, capsys):
    (cwd / "plant.toml").write_text("mine")
    assert run_command(["new", "plant", "--adapter", "mqtt"]) == Exit.CONFIG
    assert "--yes replaces it" in capsys.readouterr().err
    assert (cwd / "plant.toml").read_text() == "mine"
    assert run_command(["new", "plant", "--adapter", "mqtt", "--yes"]) == Exit.DONE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plant", "--adapter", "modbu"], "did you mean 'modbus'?"),
        (["plant", "--adapter", "mqtt", "--timezone", "Moon"], "'Moon' is not a time zone"),
        (["plugin", "operators", "x"], "did you mean 'operator'?"),
        (["plugin", "operator", "No Name"], "lower-case letters"),
        (["plugin", "operator", "window"], "there is operator 'window' already, in headrace"),
    ],
)
def test_what_can_not_be_is_told(cwd, capsys, arguments, said):
    assert run_command(["new", *arguments]) == Exit.CONFIG
    assert said in capsys.readouterr().err
    assert list(cwd.iterdir()) == []


@pytest.mark.parametrize("kind", ["adapter", "payload", "operator", "codec"])
def test_a_new_plugin_passes_its_own_tests(cwd, kind):
    assert run_command(["new", "plugin", kind, "acme_part"]) == Exit.DONE
    folder = cwd / "headrace-acme-part"
    about = tomllib.loads((folder / "pyproject.toml").read_text())
    family = {"adapter": "adapters", "payload": "payloads", "operator": "operators", "codec": "codecs"}[kind]
    (target,) = about["project"]["entry-points"][f"headrace.{family}"].values()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True, timeout=200, env={**os.environ, "PYTHONPATH": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert target.startswith("headrace_acme_part.acme_part:AcmePart")
    assert run_command(["new", "plugin", kind, "acme_part"]) == Exit.CONFIG  # it is there


@pytest.mark.parametrize("kind", ["adapter", "payload", "operator", "codec"])
def test_a_plugin_that_is_installed_is_listed(cwd, capsys, monkeypatch, kind):
    """As an installed distribution: its metadata lies on the path."""
    name = f"acme_{kind}"
    assert run_command(["new", "plugin", kind, name, "--json"]) == Exit.DONE
    made = json.loads(capsys.readouterr().out)
    about = tomllib.loads((cwd / made["folder"] / "pyproject.toml").read_text())["project"]
    info = cwd / f"headrace_{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: headrace-acme-{kind}\nVersion: 0.1.0\n")
    lines = [
        f"[{group}]\n{k} = {v}\n"
        for group, points in about["entry-points"].items()
        for k, v in points.items()
    ]
    (info / "entry_points.txt").write_text("".join(lines))
    monkeypatch.syspath_prepend(str(cwd))
    monkeypatch.syspath_prepend(str(cwd / made["folder"] / "src"))
    assert run_command(["plugins", "list", "--json"]) == Exit.DONE
    (one,) = [p for p in json.loads(capsys.readouterr().out) if p["name"] == name]
    assert (one["package"], one["problem"]) == (f"headrace-acme-{kind} 0.1.0", "")
    assert one["kind"] == f"{kind}s"


def test_nothing_is_written_in_a_dry_run_of_a_plugin(cwd, capsys):
    assert run_command(["new", "plugin", "codec", "acme", "--dry-run"]) == Exit.DONE
    assert "would write headrace-acme" in capsys.readouterr().out
    assert list(cwd.iterdir()) == []


def test_the_groups_say_what_they_have(capsys):
    for noun in ("new", "plugins", "store"):
        assert run_command([noun]) == Exit.DONE
        assert "Commands:" in capsys.readouterr().out
