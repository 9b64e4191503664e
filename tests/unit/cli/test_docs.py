"""The README and the pages say what is so."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from headrace.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def pages():
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build.pages()


@pytest.mark.parametrize("name", ["formats.md", "metrics.md"])
def test_pages_follow_from_the_code(name):
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page == pages()[name], "the code changed: run python docs/build.py"


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_links_lead_somewhere(name):
    page = ROOT / name
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (page.parent / target).exists(), target


def test_commands_of_the_readme_exist():
    for text in (README, (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        called = set(re.findall(r"uv run headrace (\w+)", text))
        assert called
        assert called <= set(COMMANDS)


def test_the_plant_file_of_the_readme_is_right(monkeypatch):
    from headrace.core.config import parse_plant
    from headrace.runtime.assemble import check_plant

    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    for text in re.findall(r"```toml\n(.*?)```", README, re.DOTALL):
        check_plant(parse_plant(tomllib.loads(text), ROOT))
