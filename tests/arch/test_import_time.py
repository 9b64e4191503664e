"""What a program pays for importing us, before it asks for anything."""

import subprocess
import sys

import pytest

HEAVY = (
    "numba",
    "pyarrow",
    "pydantic",
    "pymodbus",
    "gmqtt",
    "confluent_kafka",
    "amqtt",
    "polars",
    "pandas",
    "duckdb",
    "starlette",
    "rich",
    "obstore",
)

MEASURE = """
import sys, time
before_cpu, before = time.process_time(), time.perf_counter()
{code}
print(time.process_time() - before_cpu, *(m for m in {heavy} if m in sys.modules))
"""


def measure(code, heavy=HEAVY):
    """(CPU seconds, heavy modules loaded) of `code`, the best of three processes."""
    best_s, loaded = float("inf"), []
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-c", MEASURE.format(code=code, heavy=heavy)],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        seconds, *loaded = result.stdout.splitlines()[-1].split()
        best_s = min(best_s, float(seconds))
    return best_s, loaded


def test_importing_the_package_is_light():
    cpu_s, loaded = measure("import headrace")
    assert loaded == []
    assert cpu_s < 0.3


@pytest.mark.parametrize("module", ["headrace.core.frames", "headrace.core.sensors", "headrace.core.errors"])
def test_frames_and_the_directory_need_no_heavy_library(module):
    assert measure(f"import {module}")[1] == []


def test_help_is_quick():
    code = "from headrace.cli.main import main\nsys.argv = ['headrace', '--help']\ntry: main()\nexcept SystemExit: pass"
    cpu_s, loaded = measure(
        code,
        ("numba", "pyarrow", "pymodbus", "gmqtt", "confluent_kafka", "amqtt", "polars", "pandas", "obstore"),
    )
    assert loaded == []
    assert cpu_s < 0.5


COMPILED = """
import sys
from numba.core import compiler
compile_extra, compiled = compiler.compile_extra, []
def listed(typing, target, function, *rest, **more):
    compiled.append(function.__qualname__)
    return compile_extra(typing, target, function, *rest, **more)
compiler.compile_extra = listed
from headrace.adapters.registry import ADAPTERS
from headrace.runtime.warm import warm_kernels, warm_queries
warm_kernels(protocols=ADAPTERS.names())
warm_queries()
print(*compiled, *(m for m in ("pandas", "polars", "duckdb") if m in sys.modules))
"""


def test_the_second_engine_compiles_nothing_and_needs_no_pandas():
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=True)
        if done.stdout == "\n":
            break
    assert done.stdout == "\n"
