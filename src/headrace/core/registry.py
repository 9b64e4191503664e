"""Plug-ins by name: a table of strings, so that nothing heavy is imported before it is used.

Built-in parts are one line in a family's table (``"modbus": "headrace.adapters.modbus.adapter:ModbusAdapter"``);
third parties use the entry-point group of the family's name (``headrace.adapters``). A name twice is an error.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import Any

from headrace.core.errors import ConfigError, PluginError


class Registry:
    """The parts of one family, built-in and foreign.

    Parameters
    ----------
    family : plural, as the folder: ``adapters``; the entry-point group is ``headrace.<family>``.
    table : built-in names and where each part lives, as ``module:attribute``.
    """

    def __init__(self, family: str, table: dict[str, str]) -> None:
        self.family = family
        self.built_in = dict(table)
        self._foreign: dict[str, Any] = {}

    def targets(self) -> dict[str, str]:
        """All names and where they live, sorted.

        Raises
        ------
        PluginError : a foreign part claims a name that is taken.
        """
        found = dict(self.built_in)
        for point in entry_points(group=f"headrace.{self.family}"):
            if found.get(point.name, point.value) != point.value:
                owner = point.dist.name if point.dist else "an installed package"
                raise PluginError(
                    f"{owner} adds {self.family[:-1]} {point.name!r}, but {found[point.name]} has that name; "
                    f"uninstall one of them"
                )
            found[point.name] = point.value
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """All names, sorted."""
        return list(self.targets())

    def __contains__(self, name: object) -> bool:
        """Whether a part is called `name`.

        The entry points of all installed packages take milliseconds to read: only a name that is not built in is
        looked for there.
        """
        return name in self.built_in or name in self.targets()

    def load(self, name: str) -> Any:
        """Import the part called `name`.

        Raises
        ------
        ConfigError : no such part; the text names the nearest known ones.
        PluginError : it is known but its module can't be imported.
        """
        if (
            name in self._foreign
        ):  # to look them up takes milliseconds, and codecs are looked up for each chunk
            return self._foreign[name]
        target = self.built_in.get(name) or self.targets().get(name)
        if target is None:
            raise ConfigError(f"unknown {self.family[:-1]} {name!r}{nearest(name, self.names())}")
        module_name, _, attribute = target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as e:
            absent = isinstance(e, ModuleNotFoundError) and name in self.built_in
            remedy = f"; install it with: pip install 'headrace[{name}]'" if absent else ""
            raise PluginError(f"{self.family[:-1]} {name!r} can't be loaded: {e}{remedy}") from e
        if not hasattr(module, attribute):
            raise PluginError(f"{self.family[:-1]} {name!r}: {module_name} has no {attribute!r}")
        part = getattr(module, attribute)
        if name not in self.built_in:
            self._foreign[name] = part
        return part

    def foreign(self) -> list[str]:
        """Names that installed packages add, sorted. Raises as `targets`."""
        return [name for name in self.names() if name not in self.built_in]


def nearest(name: str, known: list[str]) -> str:
    """``; did you mean 'x'?`` where a known name is near, else the list of known names."""
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "; known: " + ", ".join(known) if known else ""
