"""All that an adapter has to pass, in one call: for whoever writes one, in this house or in a package of their own.

::

    from headrace.testing.adapter_contract import contract

    class MyRig:
        ...  # see headrace.testing.adapters.AdapterRig; more of headrace.testing.fault_rigs, as far as it can
        cannot = {"registers": "it sends texts"}  # and why not further

    @pytest.mark.parametrize("check", contract(MyRig, "my_protocol"))
    async def test_my_adapter(check, tmp_path):
        await check(tmp_path)

Every check is among those returned. One that needs an ability which the rig has not is skipped where the rig says in
``cannot`` why, and fails where it says nothing: what was not checked can't look as if it had passed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from headrace.adapters.registry import ADAPTERS
from headrace.runtime.catalogue import manifest_of
from headrace.testing import adapter_faults, adapter_inputs, adapter_process, adapters
from headrace.testing.adapters import AdapterRig
from headrace.testing.fault_rigs import check_is_able

MakeRig = Callable[[Path], AdapterRig]
"""A new rig; it may use the folder."""
RIG_CHECKS: tuple[Callable[[Any], Awaitable[None]], ...] = (
    *adapters.CHECKS, *adapter_inputs.CHECKS, *adapter_faults.CHECKS, *adapter_process.CHECKS,
)  # fmt: skip
"""All that are of an adapter and its peer, the one of the peer first."""
NEEDS = {**adapter_inputs.NEEDS, **adapter_faults.NEEDS, **adapter_process.NEEDS}
"""Abilities that a rig needs for a check: see `headrace.testing.fault_rigs.ABILITIES`."""
FIELDS = ("name", "title", "stability", "protocols", "direction", "delivery", "time", "library")
STABILITIES = ("alpha", "beta", "stable")
RULES = ("start-returns-at-once", "stop-leaves-nothing", "logs-once", "garbage-is-a-value", "no-credit-slows")
"""Rules of which a manifest has to say where they are shown."""
_STRICT_LICENCE = re.compile(r"(?<!L)\bA?GPL|\bSSPL|\bproprietary", re.IGNORECASE)
_LOOK = """
import sys, json
import headrace
alone = sorted(sys.modules)
from headrace.adapters.registry import ADAPTERS
from headrace.runtime.catalogue import manifest_of
before = set(sys.modules)
manifest_of(ADAPTERS, sys.argv[1])
print(json.dumps([alone, sorted(set(sys.modules) - before)]))
"""


def contract(
    make: MakeRig, name: str = "", checks: Sequence[Callable[[Any], Awaitable[None]]] = RIG_CHECKS
) -> list[Any]:
    """Every check, for ``pytest.mark.parametrize``: each is called with a folder, and awaited.

    Parameters
    ----------
    make : makes a rig; the class itself, where it takes a folder. name : of the protocol, for the checks of its folder.
    checks : some of them, as where they are in several files.
    """
    import pytest

    out = [pytest.param(partial(_on_rig, check, make), id=check.__name__) for check in checks]
    if name:
        out += [pytest.param(partial(_on_folder, check, name), id=check.__name__) for check in FOLDER_CHECKS]
    return out


async def _on_rig(check: Callable[[Any], Awaitable[None]], make: MakeRig, folder: Path) -> None:
    rig = make(folder)
    check_is_able(rig, NEEDS.get(check, ()))
    await check(rig)


async def _on_folder(check: Callable[[str], None], name: str, folder: Path) -> None:
    check(name)


# --- the folder ----------------------------------------------------------------------------------------


def check_manifest(name: str) -> None:
    """``manifest.toml`` says what people want to know before they install it, and where its rules are shown."""
    facts = manifest_of(ADAPTERS, name)
    assert facts, f"adapter {name!r} has no manifest.toml beside its module"
    absent = [field for field in FIELDS if not facts.get(field)]
    assert not absent, f"the manifest of {name!r} does not say: {', '.join(absent)}"
    assert facts["name"] == name, f"the manifest is of {facts['name']!r}"
    assert facts["stability"] in STABILITIES, f"{facts['stability']!r} is none of {', '.join(STABILITIES)}"
    rules = facts.get("rules")
    assert isinstance(rules, dict), "the manifest has no [rules]"
    absent = [rule for rule in RULES if not rules.get(rule)]
    assert not absent, f"the manifest of {name!r} does not say where it is shown: {', '.join(absent)}"


def check_rules_are_shown(name: str, root: Path = Path()) -> None:
    """What a manifest names as the place where a rule is shown is there.

    Parameters
    ----------
    root : of the project; places are paths from there, with words among them.
    """
    rules = manifest_of(ADAPTERS, name).get("rules")
    for rule, where in rules.items() if isinstance(rules, dict) else ():
        for place in re.findall(r"[^\s,]+/[^\s,:]+", str(where)) or [str(where)]:
            assert (root / place).is_file(), f"{name}: {rule} is shown in {place}, which is not there"


def check_licence(name: str) -> None:
    """The library that an adapter needs may be used by everybody: no GPL but the lesser one, nothing to be paid."""
    library = str(manifest_of(ADAPTERS, name).get("library", ""))
    found = _STRICT_LICENCE.search(library)
    assert found is None, f"adapter {name!r} needs {library!r}: put it into a package of its own"


def check_costs_nothing_until_it_is_used(name: str) -> None:
    """Neither ``import headrace`` nor reading the manifest imports the adapter, or any library."""
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, name], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    alone, read = json.loads(done.stdout)
    package = ADAPTERS.targets()[name].partition(":")[0].rpartition(".")[0]
    assert not [one for one in alone if one.startswith(package)], "import headrace imports the adapter"
    own = {*sys.stdlib_module_names, "headrace", package.partition(".")[0]}
    foreign = sorted({one.partition(".")[0] for one in read} - own)
    assert not foreign, f"reading the manifest of {name!r} imports {', '.join(foreign)}"


FOLDER_CHECKS: tuple[Callable[[str], None], ...] = (
    check_manifest,
    check_licence,
    check_costs_nothing_until_it_is_used,
)
"""Of the part as it is installed, by its name."""
