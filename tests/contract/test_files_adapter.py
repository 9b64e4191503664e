"""The files adapter passes the public kit."""

import json
import shutil
from types import MappingProxyType

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.files import adapter as module
from headrace.adapters.files.adapter import FilesAdapter
from headrace.adapters.files.positions import FILE
from headrace.adapters.files.simulator import CsvLogger, write_parquet
from headrace.core.problems import validate_section
from headrace.testing.adapter_contract import contract


class FilesRig:
    """A folder in which a logger appends to a file, and Parquet files turn up."""

    acknowledges = True
    can_lose = True
    is_pushed_to = False
    cannot = MappingProxyType({
        "wire": "it reads files", "fleet": "it has one folder", "registers": "a file says itself what it holds",
        "process": "how far it has read it notes itself: it is killed at that point in tests/integration/test_files.py",
    })  # fmt: skip

    def __init__(self, folder):
        self.folder, self.inbox = folder, folder / "in"
        self.aside, self.state = folder / "aside", folder / "state"
        self.logger = CsvLogger(self.inbox / "line1" / "oven1.csv", ("a", "b"), 1)
        self.n_files = 0

    def make(self):
        config = {
            "protocol": "files", "folder": "in", "interval": "20ms",
            "files": {"{line}/{device}.*": {"path": "leon/{line}/{device}/{key}", "time": "ts"}},
        }  # fmt: skip
        settings = validate_section(FilesAdapter.Config, config, "adapters.logs")
        levels = ("site", "line", "device", "signal")
        facts = PlantFacts(levels, folder=self.folder, state=self.state)
        return FilesAdapter.from_config("logs", settings, {}, facts)

    async def up(self):
        if self.aside.exists():
            self.aside.rename(self.inbox)
        self.inbox.mkdir(exist_ok=True)

    async def down(self):
        if self.inbox.exists():
            self.inbox.rename(self.aside)

    async def send(self):
        self.n_files += 1
        n = self.logger.write(5)
        if self.n_files % 2:
            n += write_parquet(
                self.inbox / "line2" / f"press{self.n_files}.parquet", 40, ("c",), self.n_files, 25
            )
        return n

    async def send_garbage(self):
        self.logger.write(1)
        with self.logger.file.open("a") as out:
            out.write("what is this?\n")
        (self.inbox / "line2").mkdir(exist_ok=True)
        (self.inbox / "line2" / "bad.parquet").write_bytes(b"this is no Parquet")

    async def send_at(self, ts_ns):
        file = self.inbox / "line3" / f"{ts_ns}.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"ts,a,b\n{ts_ns},1.5,2\n")
        return 2

    async def send_swapped(self):
        lines = [self.logger.lines(1) for _ in range(3)]
        with self.logger.file.open("a") as out:
            out.writelines(lines[number] for number in (2, 0, 1))
        return 6

    async def send_other_type(self):
        line = self.logger.lines(1).split(",")
        with self.logger.file.open("a") as out:
            out.write(f"{line[0]},warm,{line[2]}")
        return 2

    def n_acknowledged(self):
        try:
            lines = (self.state / FILE).read_text().splitlines()
        except FileNotFoundError:
            return 0
        return sum(json.loads(line)["at"] for line in lines)


@pytest.mark.parametrize("check", contract(FilesRig, "files"))
async def test_adapter(check, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_FIRST_NS", 20_000_000)
    monkeypatch.setattr(module, "LOOK_MOST_NS", 60_000_000)
    await check(tmp_path)
    shutil.rmtree(tmp_path)
