"""Which adapter runs where, and how changed code is noticed."""

import sys
from contextlib import suppress
from pathlib import Path

import pytest

from headrace.adapters.registry import ADAPTERS
from headrace.core.clock import SystemClock
from headrace.core.config import parse_plant
from headrace.core.errors import ConfigError, NotConnected, PluginError
from headrace.core.layouts import Column, Layout
from headrace.core.registry import Registry
from headrace.runtime.changes import Fingerprints, difference
from headrace.runtime.gateway import GatewayAdapter
from headrace.runtime.gateways import Gateways
from headrace.runtime.plugin_code import ImportedCode
from headrace.testing.adapters import RecordingSink


def plant(**more):
    section = {"protocol": "sim", "path": "s/a/oven{n}", "count": 1, **more}
    levels = ["site", "area", "device", "signal"]
    return parse_plant({"version": 1, "plant": {"levels": levels}, "adapters": {"demo": section}}, Path())


def test_an_adapter_runs_in_the_engine_unless_its_section_says_otherwise():
    gateways = Gateways(SystemClock())
    assert not isinstance(gateways.make(plant(), "demo"), GatewayAdapter)
    assert not isinstance(gateways.make(plant(process="engine"), "demo"), GatewayAdapter)
    found = gateways.make(plant(process="own"), "demo")
    assert isinstance(found, GatewayAdapter)
    assert hasattr(found, "probe"), "what it can is known before its process is"


async def test_a_sensor_that_another_has_ends_the_start_as_in_the_engine(tmp_path):
    sink = RecordingSink()
    gateways = Gateways(SystemClock(), spawn=no_process)
    Gateways(SystemClock()).make(plant(), "demo").declare(sink.directory)
    fine = gateways.make(plant(process="own"), "demo")
    await fine.start(sink)
    await fine.stop()
    taken = RecordingSink()
    taken.directory.define("s/a", Layout("f64", (Column("oven1/temperature"),)))
    with pytest.raises(ConfigError, match="oven1"):
        await gateways.make(plant(process="own"), "demo").start(taken)


async def no_process():
    raise NotConnected("no process can be had")


def test_a_section_is_checked_before_any_process_is_started():
    with pytest.raises(ConfigError, match="unknown key"):
        Gateways(SystemClock()).make(plant(process="own", colour="red"), "demo")
    with pytest.raises(ConfigError, match=r"adapters\.demo\.process"):
        plant(process="mine")


def test_another_process_is_a_change_of_the_adapter():
    before, after = Fingerprints.of(plant()), Fingerprints.of(plant(process="own"))
    (change,) = difference(before, after).changes
    assert (change.part, change.lines) == ("adapters.demo", ('process: "own" added',))
    assert not difference(before, Fingerprints.of(plant(process="engine")))


def test_new_code_stays_in_processes_of_its_own_where_it_could_be_loaded():
    gateways = Gateways(SystemClock())
    with suppress(RuntimeError), gateways.renewing("demo"):
        assert isinstance(gateways.make(plant(), "demo"), GatewayAdapter)
        raise RuntimeError("it can't be loaded")
    assert not isinstance(gateways.make(plant(), "demo"), GatewayAdapter)
    with gateways.renewing("demo"):
        pass
    with suppress(RuntimeError), gateways.renewing("demo"):
        raise RuntimeError("the next one can't be loaded")
    # Its section is checked by the new code, and no more by the one that the engine has.
    assert isinstance(gateways.make(plant(colour="red"), "demo"), GatewayAdapter)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a part in a module of its own, installed."""
    folder = tmp_path / "part_of_others"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "part.py").write_text("class Part: pass\n")
    (folder / "rules.py").write_text("N = 1\n")
    info = tmp_path / "part_of_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: part-of-others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headrace.parts]\np = part_of_others.deep.part:Part\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("part_of_others")]:
        del sys.modules[name]


def test_code_has_changed_where_a_file_that_was_imported_has(package):
    registry = Registry("parts", {})
    registry.load("p")
    code = ImportedCode.of(registry, "p")
    assert code.target == "part_of_others.deep.part:Part"
    assert not code.has_changed(registry, "p")
    (package / "part_of_others" / "rules.py").write_text("N = 2\n")
    assert not code.has_changed(registry, "p"), "nobody has imported it"
    file = package / "part_of_others" / "deep" / "part.py"
    text = file.read_text()
    file.write_text(text + "# more\n")
    assert code.has_changed(registry, "p")
    file.write_text(text)
    assert not code.has_changed(registry, "p"), "only its content counts"
    file.unlink()
    assert code.has_changed(registry, "p")


def test_code_has_changed_where_the_part_is_elsewhere_or_gone(package, monkeypatch):
    registry = Registry("parts", {})
    registry.load("p")
    code = ImportedCode.of(registry, "p")
    points = package / "part_of_others-1.0.dist-info" / "entry_points.txt"
    points.write_text("[headrace.parts]\np = part_of_others.new:Part\n")
    assert code.has_changed(registry, "p")
    points.write_text("")
    assert code.has_changed(registry, "p")
    assert ImportedCode.of(registry, "p") is None

    def clash(self):
        raise PluginError("two have that name")

    monkeypatch.setattr(Registry, "targets", clash)
    assert code.has_changed(registry, "p")


def test_a_built_in_adapter_is_its_own_folder():
    ADAPTERS.load("sim")
    code = ImportedCode.of(ADAPTERS, "sim")
    folders = {Path(file).parent.name for file in code.files}
    assert folders == {"sim"}
    assert not Gateways(SystemClock()).is_stale(plant(), "demo", None)
