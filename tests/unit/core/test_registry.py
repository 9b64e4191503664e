import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from headrace.core import registry
from headrace.core.errors import ConfigError, PluginError
from headrace.core.registry import Registry, nearest

TABLE = {
    "ordered": "collections:OrderedDict",
    "absent": "no_such_library_of_ours:Thing",
    "lost": "collections:Nothing",
}


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A real package with entry points, on the path."""
    (tmp_path / "oven_plugin.py").write_text("class OvenAdapter: pass\n")
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('half installed')\n")
    info = tmp_path / "oven_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oven-plugin\nVersion: 1.0\n")

    def install(**points):
        lines = "".join(f"{name} = {target}\n" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[headrace.adapters]\n{lines}")

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    for module in ("oven_plugin", "broken_plugin"):
        sys.modules.pop(module, None)


def test_built_in_parts_are_loaded_by_name():
    from collections import OrderedDict

    assert Registry("adapters", TABLE).load("ordered") is OrderedDict


def test_foreign_parts_stand_beside_built_in_ones(foreign):
    foreign(oven="oven_plugin:OvenAdapter")
    adapters = Registry("adapters", TABLE)
    assert adapters.names() == ["absent", "lost", "ordered", "oven"]
    assert adapters.load("oven").__name__ == "OvenAdapter"


def test_foreign_parts_are_looked_up_once(foreign, monkeypatch):
    foreign(oven="oven_plugin:OvenAdapter")
    parts = Registry("adapters", TABLE)
    assert parts.foreign() == ["oven"]
    found = parts.load("oven")
    monkeypatch.setattr(registry, "entry_points", lambda group: pytest.fail("read again"))
    assert parts.load("oven") is found


def test_a_name_twice_is_an_error_that_names_both(foreign):
    foreign(ordered="oven_plugin:OvenAdapter")
    with pytest.raises(
        PluginError, match="oven-plugin adds adapter 'ordered', but collections:OrderedDict has that"
    ):
        Registry("adapters", TABLE).names()


def test_a_built_in_part_may_be_listed_as_an_entry_point_too(foreign):
    foreign(ordered="collections:OrderedDict")
    assert "ordered" in Registry("adapters", TABLE).names()


def test_a_clash_without_a_known_package(monkeypatch):
    point = EntryPoint("ordered", "other:Thing", "headrace.adapters")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert SimpleNamespace(dist=point.dist).dist is None
    with pytest.raises(PluginError, match="an installed package adds"):
        Registry("adapters", TABLE).targets()


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown adapter 'orderd'; did you mean 'ordered'\?"):
        Registry("adapters", TABLE).load("orderd")


def test_a_part_whose_library_is_missing_says_how_to_get_it():
    with pytest.raises(
        PluginError, match=r"No module named 'no_such_library_of_ours'; install it with: pip install"
    ):
        Registry("adapters", TABLE).load("absent")


def test_a_part_that_is_not_in_its_module():
    with pytest.raises(PluginError, match="collections has no 'Nothing'"):
        Registry("adapters", TABLE).load("lost")


def test_a_foreign_part_that_breaks_on_import(foreign):
    foreign(broken="broken_plugin:Adapter")
    with pytest.raises(PluginError, match="adapter 'broken' can't be loaded: half installed$"):
        Registry("adapters", TABLE).load("broken")


def test_nearest():
    assert nearest("tempo", ["temp", "tempi", "x"]) == "; did you mean 'temp' or 'tempi'?"
    assert nearest("zzz", ["a", "b"]) == "; known: a, b"
    assert nearest("zzz", []) == ""


def test_whether_there_is_a_part_of_a_name(foreign):
    foreign(oven="oven_plugin:OvenAdapter")
    adapters = Registry("adapters", TABLE)
    assert "ordered" in adapters
    assert "oven" in adapters
    assert "kiln" not in adapters


def test_installed_packages_are_not_read_for_a_built_in_part(monkeypatch):
    def read(group):
        raise AssertionError(f"{group} was looked for among all installed packages")

    monkeypatch.setattr(registry, "entry_points", read)
    adapters = Registry("adapters", TABLE)
    assert "ordered" in adapters
    assert adapters.load("ordered")
