"""Which code of a plug-in this process has imported, and whether the files say something else by now.

Python imports a module once. So a process compares what it imported with what lies on the disk by the content of the
files: times and versions may change without it, and stay the same in spite of it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import xxhash

from headrace.core.errors import HeadraceError
from headrace.core.registry import Registry


@dataclass(frozen=True, slots=True)
class ImportedCode:
    """What a part's code was when it was imported.

    Parameters
    ----------
    target : where the part lives, ``module:attribute``. files : hash of each of its package's files, by path.
    """

    target: str
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, registry: Registry, name: str) -> Self | None:
        """The code of a part that has just been imported; None where the registry has no such part.

        A part of Headrace is its own folder, one of another package all that is imported of that package.
        """
        target = registry.built_in.get(name) or registry.targets().get(name)
        if target is None:
            return None
        module = target.partition(":")[0]
        root = module.rpartition(".")[0] if name in registry.built_in else module.partition(".")[0]
        # Modules may come and go while another thread imports.
        loaded = [m for key, m in list(sys.modules.items()) if key == root or key.startswith(f"{root}.")]
        paths = sorted({str(m.__file__) for m in loaded if getattr(m, "__file__", None)})
        return cls(target, {path: _hash(path) for path in paths})

    def has_changed(self, registry: Registry, name: str) -> bool:
        """Whether a process that imports the part now would get other code. Reads its files."""
        importlib.invalidate_caches()
        try:
            target = registry.targets().get(name)
        except HeadraceError:
            return True
        return target != self.target or any(_hash(path) != before for path, before in self.files.items())


def _hash(path: str) -> str:
    try:
        return xxhash.xxh3_64_hexdigest(Path(path).read_bytes())
    except OSError:
        return ""
