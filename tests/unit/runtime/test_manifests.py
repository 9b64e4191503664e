"""What parts say of themselves without being imported, and that no extra brings code under the GPL."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement

from headrace.adapters.registry import PAYLOADS
from headrace.core.registry import Registry
from headrace.runtime.catalogue import find_plugins, manifest_of

SAID = ("name", "title", "stability", "formats", "library", "extra")
GPL = re.compile(r"\b(A?GPL|(Affero )?General Public License)", re.IGNORECASE)
LESSER = re.compile(r"\bLGPL[^\s;,]*|(GNU )?(Library or )?Lesser General Public License[^;,]*", re.IGNORECASE)


@pytest.mark.parametrize("name", PAYLOADS.built_in)
def test_payloads_say_what_they_are(name):
    facts = manifest_of(PAYLOADS, name)
    assert [key for key in SAID if key not in facts] == []
    assert facts["name"] == name
    assert facts["stability"] in ("alpha", "beta", "stable")
    (shown,) = (one for one in find_plugins("payloads") if one.name == name)
    assert (shown.title, shown.stability, shown.problem) == (facts["title"], facts["stability"], "")
    assert shown.docs.startswith("headrace.adapters.payloads."), "there is no README of all of them"


def test_manifests_are_read_without_importing_what_they_are_of():
    code = (
        "import sys\n"
        "from headrace.adapters.registry import ADAPTERS, PAYLOADS\n"
        "from headrace.runtime.catalogue import manifest_of\n"
        "for registry in (ADAPTERS, PAYLOADS):\n"
        "    assert all(manifest_of(registry, name)['title'] for name in registry.built_in)\n"
        "print([m for m in sys.modules if m.startswith('headrace.adapters.payloads.') or m.endswith('.adapter')"
        " or m in ('msgspec', 'asyncua', 'gmqtt')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_of_a_folder_with_several_parts_each_has_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "many_parts"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "manifest.toml").write_text('[parts.one]\ntitle = "One"\n')
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("payloads", {"one": "many_parts.a:A", "two": "many_parts.b:B"})
    assert (manifest_of(registry, "one"), manifest_of(registry, "two")) == ({"title": "One"}, {})
    (folder / "manifest.toml").write_text('parts = 5\ntitle = "All"\n')
    assert manifest_of(registry, "two")["title"] == "All"


def licences(name):
    """What an installed package says of its licence: expression, classifiers, and, where there are none, its own words."""
    facts = distribution(name).metadata
    found = facts.get_all("License-Expression") or []
    found += [one for one in facts.get_all("Classifier") or [] if one.startswith("License ::")]
    own = (facts.get("License") or "").strip()
    return found or [own.partition("\n")[0][:200]]


def is_gpl(text):
    """Whether a licence is the GPL or AGPL and nothing else may be chosen; the LGPL is not meant."""
    choices = re.split(r"\bOR\b", LESSER.sub("", text))
    return all(GPL.search(one) for one in choices)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GPL-3.0-only", True), ("AGPL-3.0", True), ("LGPL-3.0-or-later", False), ("MIT OR GPL-2.0", False), ("MIT", False),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False), ("", False),
        ("MIT AND GPL-2.0-only", True),
    ],
)  # fmt: skip
def test_the_gpl_is_recognised(text, expected):
    assert is_gpl(text) is expected


def needed(name, extras, seen):
    """Installed packages that a package needs with these extras, itself included."""
    for text in distribution(name).requires or []:
        one = Requirement(text)
        wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
        key = one.name.lower(), frozenset(one.extras)
        if not wanted or key in seen:
            continue
        seen.add(key)
        try:
            needed(one.name, one.extras, seen)
        except PackageNotFoundError:
            seen.discard(key)  # not for this platform, or `plot`, which is in no test environment
    return {package for package, _ in seen}


def test_no_extra_brings_code_under_the_gpl():
    extras = distribution("headrace").metadata.get_all("Provides-Extra")
    assert {"modbus", "mqtt", "opcua", "kafka", "web"} <= set(extras)
    packages = needed("headrace", extras, set())
    assert {"pymodbus", "gmqtt", "asyncua", "confluent-kafka", "pyarrow"} <= packages
    refused = {one: licences(one) for one in sorted(packages) if any(map(is_gpl, licences(one)))}
    assert refused.keys() <= {"docutils"}, refused
    files = [str(file) for file in distribution("docutils").files or []]
    assert not [file for file in files if file.endswith(".el")], "its Emacs mode is all that is under the GPL"
