"""Packages of `examples/` as an installer leaves them, for tests that use them from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def install(package: Path, target: Path, entry_points: str) -> Path:
    """Install a package into a folder: by uv where it can build, else laid out by hand with these entry points."""
    uv = shutil.which("uv")
    command = [
        str(uv),
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--offline",
        "--target",
        str(target),
        str(package),
    ]
    if uv and subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return target
    shutil.rmtree(target)
    shutil.copytree(package / "src", target)
    metadata = target / f"{package.name.replace('-', '_')}-1.0.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: 1.0.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    return target


def environment(installed: Path) -> dict[str, str]:
    """Variables with which a Python process finds it, and what is installed here."""
    return {"PYTHONPATH": os.pathsep.join([str(installed), sysconfig.get_path("purelib")])}


def python(installed: Path, *arguments: str) -> str:
    """What a Python process says that finds it; the process has to end well."""
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment(installed)}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
