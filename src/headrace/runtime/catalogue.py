"""What plug-ins there are: built-in parts and those of installed packages, with what each says of itself."""

from __future__ import annotations

import inspect
import re
import tomllib
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.resources import files

from headrace.adapters.registry import ADAPTERS, PAYLOADS
from headrace.codecs.registry import TIME_CODECS, VALUE_CODECS
from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.registry import Registry, nearest
from headrace.pipeline.operators.registry import OPERATORS

KINDS = ("adapters", "payloads", "operators", "codecs")
_LITERAL = re.compile(r"``[^`]*``[,:;]? ?")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One part.

    Parameters
    ----------
    kind, name : its family and how a plant file calls it. title : one line. stability : stable, beta, alpha; for foreign
        parts what their manifest says, else "". extra : of ``pip install 'headrace[extra]'``, "" for none.
    package : that adds it. docs : where it is described. problem : why it can't be loaded, "" where it can.
    """

    kind: str
    name: str
    title: str
    stability: str
    extra: str
    package: str
    docs: str
    problem: str = ""


def find_plugins(kind: str | None = None) -> list[Plugin]:
    """All parts, or those of one family, by family and name.

    Raises
    ------
    ConfigError : no such family. PluginError : two packages claim one name.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"no kind of plug-ins {kind!r}{nearest(kind, list(KINDS))}")
    registries: dict[str, tuple[Registry, ...]] = {
        "adapters": (ADAPTERS,), "payloads": (PAYLOADS,), "operators": (OPERATORS,),
        "codecs": (VALUE_CODECS, TIME_CODECS),
    }  # fmt: skip
    out = []
    for family in KINDS if kind is None else (kind,):
        for registry in registries[family]:
            out += [_about(family, registry, name) for name in registry.names()]
    return out


def _about(family: str, registry: Registry, name: str) -> Plugin:
    facts = manifest_of(registry, name)
    problem = ""
    title = str(facts.get("title", ""))
    try:
        part = registry.load(name)
        title = title or _first_line(part)
    except HeadraceError as e:
        problem = str(e)
    own = name in registry.built_in
    package, home = ("headrace", _page(registry, name)) if own else _owner(registry, name)
    return Plugin(
        family, name, title, str(facts.get("stability", "beta" if own else "")), str(facts.get("extra", "")),
        package, home, problem,
    )  # fmt: skip


def manifest_of(registry: Registry, name: str) -> dict[str, object]:
    """``manifest.toml`` beside the part's module, where there is one; nothing of the part is imported.

    Where several parts lie in one folder each has a table of its own there: ``[parts.csv]``.
    """
    target = registry.built_in.get(name) or registry.targets()[name]
    package = target.partition(":")[0].rpartition(".")[0]
    try:
        text = files(package).joinpath("manifest.toml").read_text(encoding="utf-8")
        facts = tomllib.loads(text)
    except (ImportError, OSError, ValueError, TypeError):
        return {}
    parts = facts.get("parts")
    return parts.get(name, {}) if isinstance(parts, dict) else facts


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a url's scheme tells: which adapter talks to such sources.

    Parameters
    ----------
    protocol : its name. lends : whether a source takes but one connection, so that a running adapter lends its own.
    """

    protocol: str
    lends: bool


def schemes() -> dict[str, Scheme]:
    """Url schemes of all adapters, as ``schemes`` of their manifests has them, by name."""
    found: dict[str, Scheme] = {}
    for name in ADAPTERS.names():
        facts = manifest_of(ADAPTERS, name)
        listed = facts.get("schemes", [])
        lends = bool(facts.get("lends_connection", False))
        for scheme in listed if isinstance(listed, list) else []:
            found.setdefault(str(scheme), Scheme(name, lends))
    return found


def _first_line(part: object) -> str:
    """The first sentence of what the part, or else its module, says of itself."""
    module = inspect.getmodule(part)
    text = inspect.getdoc(part) or ""
    if module is not None and (not text or text.startswith("``{")):
        text = inspect.getdoc(module) or text
    line = _LITERAL.sub("", text.partition("\n")[0]).rstrip(".")
    return line[:1].upper() + line[1:]


def _page(registry: Registry, name: str) -> str:
    """Where a built-in part is described: its folder's README, or else the text of its module."""
    module = registry.targets()[name].partition(":")[0]
    package = module.rpartition(".")[0]
    if files(package).joinpath("README.md").is_file():
        return f"{package.replace('.', '/')}/README.md"
    return module


def _owner(registry: Registry, name: str) -> tuple[str, str]:
    """Package that adds a foreign part, and its home page."""
    for point in entry_points(group=f"headrace.{registry.family}", name=name):
        if point.dist is not None:
            urls = point.dist.metadata.get_all("Project-URL") or []
            home = next((url.partition(", ")[2] for url in urls), "")
            return f"{point.dist.name} {point.dist.version}", home
    return "", ""
