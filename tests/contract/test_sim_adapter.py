"""The sim adapter passes the public kit, but for garbage: nothing comes to it that could be any."""

from types import MappingProxyType

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.sim import adapter as module
from headrace.adapters.sim.adapter import SimAdapter
from headrace.core.problems import validate_section
from headrace.testing import adapter_faults as faults
from headrace.testing import adapters as kit
from headrace.testing.adapter_contract import RIG_CHECKS, contract
from headrace.testing.fault_rigs import ABILITIES


class SimRig:
    """Three devices of four sensors, every 20 ms."""

    acknowledges = False
    can_lose = False
    is_pushed_to = True  # it looks for nobody
    gives_more = True  # and goes on for ever
    cannot = MappingProxyType(dict.fromkeys(ABILITIES, "it makes its values itself"))

    def __init__(self, folder):
        pass

    def make(self):
        settings = validate_section(SimAdapter.Config, {"interval": "20ms"}, "adapters.demo")
        return SimAdapter.from_config("demo", settings, {}, PlantFacts())

    async def up(self):
        pass

    async def down(self):
        pass

    async def send(self):
        return 12

    async def send_garbage(self):
        raise AssertionError("it takes nothing")

    def n_acknowledged(self):
        raise AssertionError("nobody is told anything")


NO_INPUT = (kit.check_garbage_is_a_value, faults.check_capture_decodes_to_the_same)


@pytest.mark.parametrize("check", contract(SimRig, "sim", [one for one in RIG_CHECKS if one not in NO_INPUT]))
async def test_adapter(check, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "RETRY_FIRST_NS", 20_000_000)
    await check(tmp_path)
