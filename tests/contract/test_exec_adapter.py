"""The exec adapter passes the public kit."""

import sys
from types import MappingProxyType

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.exec import simulator
from headrace.adapters.exec.adapter import ExecAdapter
from headrace.core.problems import validate_section
from headrace.testing.adapter_contract import contract


class ExecRig:
    """A program that writes on what is appended to a file, and ends when the file is gone."""

    acknowledges = False
    can_lose = True
    is_pushed_to = False
    cannot = MappingProxyType({
        "wire": "it reads a pipe", "fleet": "it is one program", "registers": "a line says itself what it holds",
        "process": "a pipe is told nothing",
    })  # fmt: skip

    def __init__(self, folder):
        self.folder = folder
        self.spool = folder / "spool"
        self.n_sent = 0

    def make(self):
        config = {
            "protocol": "exec", "command": [sys.executable, "-S", simulator.__file__, "follow", str(self.spool)],
            "path": "leon/a/{host}/{measurement}/{field}", "restart_first": "20ms", "restart_most": "60ms",
        }  # fmt: skip
        settings = validate_section(ExecAdapter.Config, config, "adapters.program")
        return ExecAdapter.from_config("program", settings, {}, PlantFacts(folder=self.folder))

    async def up(self):
        self.spool.touch()

    async def down(self):
        self.spool.unlink(missing_ok=True)

    async def send(self):
        with self.spool.open("a") as out:
            for _ in range(5):
                out.write(f"oven,host=pi n={self.n_sent}i,t=1.5 {1_700_000_000_000_000_000 + self.n_sent}\n")
                self.n_sent += 1
        return 10

    async def send_garbage(self):
        with self.spool.open("ab") as out:
            out.write(b"what is this?\n\xff\x00=\n")

    async def send_at(self, ts_ns):
        with self.spool.open("a") as out:
            out.write(f"oven,host=pi n={self.n_sent}i,t=1.5 {ts_ns}\n")
        return 2

    async def send_swapped(self):
        with self.spool.open("a") as out:
            for number in (2, 0, 1):
                ts_ns = 1_700_000_000_000_000_000 + self.n_sent + number
                out.write(f"oven,host=pi n={self.n_sent + number}i,t=1.5 {ts_ns}\n")
        self.n_sent += 3
        return 6

    async def send_other_type(self):
        self.n_sent += 1
        with self.spool.open("a") as out:
            out.write(f'oven,host=pi n="many",t=1.5 {1_700_000_000_000_000_000 + self.n_sent}\n')
        return 2

    def n_acknowledged(self):
        raise AssertionError("a pipe is told nothing")


@pytest.mark.parametrize("check", contract(ExecRig, "exec"))
async def test_adapter(check, tmp_path):
    await check(tmp_path)
