"""The sweep to 100,000 sensors: every sample arrives once, and costs no more where there are more sensors.

The bounds stand a machine whose cores others use: costs are CPU time, held against each other and against Polars in
the same run. They are far from what is usual, so that what crosses them is another order of growth or magnitude.
"""

import json
import subprocess
import sys
from itertools import pairwise

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
GROWTH_MAX = 3.0
"""Cost of a sample with ten times the sensors; 1.1 at most is usual, 0.2 where batches are small."""
COST_MAX = {"dense": 4.0, "mixed": 5.0, "sparse": 40.0, "wave": 3.0}
"""Cost of a sample in the largest plant, as a multiple of the reference's; four times what is usual."""


@pytest.fixture(scope="module")
def swept():
    command = ["bench", "throughput", "--sweep", "--up-to", "100000", "--json"]
    done = subprocess.run([sys.executable, "-m", "headrace", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_shape(swept):
    found = {}
    for point in swept["points"]:
        found.setdefault(point["shape"], []).append(point)
    return found


def test_every_sample_is_stored_once(swept):
    assert [p for p in swept["points"] if p["lost"] or p["duplicated"] or not p["samples"]] == []


def test_a_sample_costs_no_more_where_there_are_more_sensors(swept):
    for shape, points in by_shape(swept).items():
        for few, many in pairwise(points):
            growth = many["cpu_ns_per_sample"] / few["cpu_ns_per_sample"]
            assert growth <= GROWTH_MAX, f"{shape}, {many['sensors']:,} sensors: {growth:.1f} times"


def test_a_sample_of_the_largest_plant_costs_what_it_may(swept):
    reference = swept["reference"]["cpu_ns_per_sample"]
    for shape, points in by_shape(swept).items():
        multiple = points[-1]["cpu_ns_per_sample"] / reference
        assert multiple <= COST_MAX[shape], f"{shape}: {multiple:.1f} times the reference's {reference} ns"
