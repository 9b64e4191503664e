import subprocess
import sys
import time

import click
import pytest

from headrace.cli.exits import Exit, exit_of, sentence
from headrace.cli.main import COMMANDS, run_command
from headrace.core.errors import ConfigError, NotAllowed, NotFound, PluginError, StorageError, Unreachable


def test_help_names_every_command_and_imports_none(capsys):
    assert run_command(["--help"]) == Exit.DONE
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert "headrace query" in text


def test_no_arguments_is_help(capsys):
    assert run_command([]) == Exit.DONE
    assert capsys.readouterr().out.startswith("Usage: headrace")


def test_help_is_quick_and_light():
    probe = (
        "import sys; from headrace.cli.main import run_command; run_command(['--help']);"
        "heavy = {'numba', 'pyarrow', 'pymodbus', 'gmqtt', 'numpy', 'pydantic', 'rich'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    begun = time.process_time()
    took = []
    for _ in range(3):
        begun = time.monotonic()
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
        took.append(time.monotonic() - begun)
        assert done.returncode == 0, done.stderr
    assert min(took) < 1.0  # 0.2 s on an idle machine


@pytest.mark.parametrize("command", ["demo", "run", "check", "query", "status", "adapters", "bench"])
def test_each_command_teaches(command, capsys):
    assert run_command([command, "--help"]) == Exit.DONE
    assert "Usage: headrace" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [["demo"], ["run"], ["check"], ["query"], ["status"], ["adapters", "list"], ["adapters", "show"],
     ["bench", "throughput"], ["bench", "recovery"], ["bench", "query"],
     ["bench", "restart"], ["bench", "directory"]],
)  # fmt: skip
def test_help_has_examples(command, capsys):
    run_command([*command, "--help"])
    assert f"  headrace {' '.join(command)}" in capsys.readouterr().out.split("Examples:")[1]


def test_an_unknown_command_names_the_nearest(capsys):
    assert run_command(["quary"]) == Exit.CONFIG
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "headrace: no command 'quary'; did you mean 'query'? (see: headrace --help)\n"


def test_wrong_usage_is_one_sentence(capsys):
    assert run_command(["query"]) == Exit.CONFIG
    assert capsys.readouterr().err == "headrace: Missing argument 'PATTERN' (see: headrace query --help)\n"


def test_version(capsys):
    assert run_command(["--version"]) == Exit.DONE
    assert capsys.readouterr().out.startswith("headrace 0.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2), (PluginError("x"), 2), (click.UsageError("x"), 2), (Unreachable("x"), 3),
        (NotAllowed("x"), 4), (PermissionError("x"), 4), (NotFound("x"), 1), (StorageError("x"), 1),
        (ValueError("x"), 1), (KeyboardInterrupt(), 1),
    ],
)  # fmt: skip
def test_exit_codes(error, code):
    assert exit_of(error) == code


def test_a_defect_is_a_sentence_that_says_what_to_do():
    text = sentence(ValueError("odd"))
    assert "ValueError: odd" in text
    assert "HEADRACE_TRACEBACK=1" in text
    assert sentence(KeyboardInterrupt()) == "interrupted"


def test_only_the_first_problem_of_many_is_told():
    error = ConfigError("first\nb: second\nc: third", "a")
    assert sentence(error) == "a: first (and 2 more problems: headrace check shows all)"


def test_a_traceback_comes_when_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("HEADRACE_TRACEBACK", "1")
    monkeypatch.setattr("headrace.cli.main.cli.main", _fail)
    assert run_command(["status"]) == Exit.FAILED
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.delenv("HEADRACE_TRACEBACK")
    assert run_command(["status"]) == Exit.FAILED
    assert "Traceback" not in capsys.readouterr().err


def _fail(*_, **__):
    raise ValueError("odd")


def test_a_reader_that_goes_away_is_no_error():
    probe = (
        "import sys; sys.path; from headrace.cli.main import main; sys.argv = ['headrace', '--help']; main()"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{probe}" | true'], capture_output=True, text=True
    )
    assert done.stderr == ""
