"""A watched folder and a whole plant: killed between what was durable and what was noted, nothing is lost or twice."""

import asyncio
import json
import os
import signal
import time

import pytest

from headrace.adapters.files.positions import FILE
from headrace.adapters.files.simulator import CsvLogger, compress, rotate_by_copy, rotate_by_name, write_parquet
from headrace.runtime.reader import open_store

pytestmark = pytest.mark.timeout(60)
PLANT = """version = 1
[plant]
levels = ["site", "line", "device", "signal"]
[store]
url = "./store"
flush_interval = "1s"
[api]
listen = "127.0.0.1:0"
[adapters.logs]
protocol = "files"
folder = "in"
interval = "20ms"
[adapters.logs.files]
"{line}/{device}.csv*" = { path = "leon/{line}/{device}/{key}", time = "ts" }
"{line}/{device}.log" = { path = "leon/{line}/{device}/{key}", format = "csv" }
"""
LINES = 4_000


def stored(folder):
    """path → (time, value) of every sample, in order of time."""
    found = open_store(folder / "store").query("leon/**", from_="2020-01-01", to="2100-01-01")
    out = {}
    for row in found.to_rows():
        out.setdefault(row["path"], []).append((row["ts"], row["value"]))
    return out
