"""Finding by levels gives what matching every whole path gives."""

import numpy as np
import pytest

from headrace.core import finding
from headrace.core.layouts import Column, Layout
from headrace.core.paths import pattern_regex
from headrace.core.sensors import SensorDirectory

PATTERNS = [
    "**", "**/**", "*", "*/**", "leon/**", "leon/*/*", "leon/line1/oven1", "leon/line1/oven1/**", "**/oven1/**",
    "leon/line1/oven1/temperature/**", "leon/line1/oven1/temperature", "**/temperature", "**/t*", "**/{a,t}*e",
    "leon/**/temperature", "**/line*/**", "**/lone3", "**/lone*", "plant/lone3/**", "**/lone3_mean_1m", "**/*_mean_1m",
    "**/*_max_1m", "plant/*", "plant/{lone1,lone2}", "**/Rebirth", "leon/line2/node/Node*/Rebirth", "**/node/**",
    "temperature", "x/**", "leon/line1/a b&c-d/*", "**/ö*/*", "**/*_odd", "plant/lo*_me*", "leon/line1/**/pressure/**",
]  # fmt: skip


def layout(*names, dtype="u16"):
    return Layout(dtype, tuple(Column(n) for n in names))


@pytest.fixture(scope="module")
def plant():
    directory = SensorDirectory()
    oven, lone = layout("temperature", "pressure"), layout("")
    ovens = [f"leon/line{i}/oven{j}" for i in range(3) for j in range(4)]
    directory.define_many([*ovens, "leon/line1/a b&c-d", "leon/öl/x"], oven)
    lones = [f"plant/lone{i}" for i in range(6)]
    directory.define_many(lones, lone)
    directory.define_many(lones, layout("../{self}_mean_1m", "../{self}_min_1m", dtype="f64"), "~minutes")
    directory.define_many(lones[:2], layout("../x{self}_odd", dtype="f64"), "~odd")
    directory.define("leon/line2/node", layout("Node Control/Rebirth", "t"))
    directory.define("leon/line1/oven1", layout("pressure", "humidity"))
    directory.define("leon/line1/oven1", layout("humidity"))
    directory.define("leon/line2/oven2", layout("temperature", "pressure", "t3"))
    return directory


def every_path(directory):
    """Of all sensors, under their newest slots."""
    seen = {}
    for slot in range(directory.n_slots):
        for column, sensor in enumerate(directory.sensors(slot).tolist()):
            seen[sensor] = directory.sensor_path(slot, column), slot, column
    return seen


@pytest.mark.parametrize("singly_max", [2_000, 0])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_finds_what_its_regex_matches(plant, monkeypatch, pattern, singly_max):
    monkeypatch.setattr(finding, "MATCHED_SINGLY_MAX", singly_max)
    regex = pattern_regex(pattern)
    want = {
        i: (slot, column) for i, (path, slot, column) in every_path(plant).items() if regex.fullmatch(path)
    }
    found = plant.find(pattern)
    got = zip(found.slot.tolist(), found.column.tolist(), strict=True)
    assert dict(zip(found.sensor.tolist(), got, strict=True)) == want
    assert len(found) == len(want)
    assert (np.diff(found.slot.astype(np.int64) << 16 | found.column) > 0).all()


def test_nothing_is_found_in_an_empty_directory():
    assert len(SensorDirectory().find("**")) == 0
