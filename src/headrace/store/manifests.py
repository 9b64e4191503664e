"""Manifests: what a partition of the warm tier holds, one UTC day each.

``manifests/warm/<day>/<version>.json`` are created only if absent; the newest one counts. It names the day's
files and up to which commit of each incarnation the day's hot rows are in them. A reader takes the manifest,
then the hot rows of later commits. So a partition changes in one step, and there is no manifest of the whole
store for writers to fight over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound
from headrace.store.commits import SegmentInfo, checked, sealed_json, unsealed_json

FOLDER = "manifests/warm"
HOT_FOLDER, WARM_FOLDER, ROLLUP_FOLDER = "segments/hot", "segments/warm", "segments/rollups"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a partition.

    Parameters
    ----------
    consumed : newest commit of each incarnation whose rows of this day are in `files`.
    left_out : hot segments among those that could not be read: they stay, and are read beside the files.
    is_whole : written after the day was over, all of it at once.
    rollups : files with rollups (`headrace.store.resolutions`) of the rows in `files`, but for those that are named
    `beside`: what came later.
    n_dropped : samples that were here, of which only rollups are left.
    """

    day: int
    number: int = 0
    published_ns: int = 0
    files: tuple[SegmentInfo, ...] = ()
    consumed: dict[int, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    is_whole: bool = False
    rollups: tuple[SegmentInfo, ...] = ()
    beside: tuple[str, ...] = ()
    n_dropped: int = 0

    @property
    def name(self) -> str:
        """Path in the store."""
        return manifest_path(self.day, self.number)

    def is_rolled(self, file: SegmentInfo) -> bool:
        """Whether the rollups stand for the rows of one of the files."""
        return bool(self.rollups) and file.name not in self.beside

    def has_consumed(self, segment: str) -> bool:
        """Whether the day's rows of a hot segment are in the files."""
        incarnation, m = hot_number(segment)
        return m <= self.consumed.get(incarnation, 0) and segment not in self.left_out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "version": _VERSION, "day": self.day, "number": self.number, "published_ns": self.published_ns,
            "files": [f.to_dict() for f in self.files],
            "consumed": {str(i): m for i, m in sorted(self.consumed.items())},
            "left_out": list(self.left_out), "is_whole": self.is_whole,
        } | self._rolled()  # fmt: skip

    def _rolled(self) -> dict[str, Any]:
        """What is written of rollups: nothing where there is nothing to say, as earlier releases did."""
        said: dict[str, Any] = {"rollups": [f.to_dict() for f in self.rollups]} if self.rollups else {}
        said |= {"beside": list(self.beside)} if self.beside else {}
        return said | ({"n_dropped": self.n_dropped} if self.n_dropped else {})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Manifest:
        """The inverse of `to_dict`. Raises `CorruptionError`."""
        try:
            return cls(
                checked(data["day"], int), checked(data["number"], int), checked(data["published_ns"], int),
                tuple(SegmentInfo.from_dict(f) for f in data["files"]),
                {int(i): checked(m, int) for i, m in data["consumed"].items()},
                tuple(checked(name, str) for name in data["left_out"]), checked(data["is_whole"], bool),
                tuple(SegmentInfo.from_dict(f) for f in data.get("rollups", ())),
                tuple(checked(name, str) for name in data.get("beside", ())), checked(data.get("n_dropped", 0), int),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise CorruptionError(f"its content is no manifest: {e!r}") from e


def manifest_path(day: int, number: int) -> str:
    """``manifests/warm/<day>/<version>.json``."""
    return f"{FOLDER}/{day:06d}/{number:06d}.json"


def hot_path(incarnation: int, m: int) -> str:
    """``segments/hot/<incarnation>/<m>.parquet``: the segment of commit m."""
    return f"{HOT_FOLDER}/{incarnation:08d}/{m:08d}.parquet"


def hot_number(name: str) -> tuple[int, int]:
    """The inverse of `hot_path`."""
    *_, incarnation, file = name.split("/")
    return int(incarnation), int(file.removesuffix(".parquet"))


def list_manifests(disk: Disk) -> dict[int, list[int]]:
    """Versions of each day, oldest first."""
    out: dict[int, list[int]] = {}
    for path in disk.list(FOLDER):
        parts = path.removesuffix(".json").split("/")
        if len(parts) == 4 and parts[2].lstrip("-").isdigit() and parts[3].isdigit():
            out.setdefault(int(parts[2]), []).append(int(parts[3]))
    return {day: sorted(numbers) for day, numbers in sorted(out.items())}


def read_manifest(disk: Disk, day: int, numbers: list[int]) -> tuple[Manifest, str]:
    """The newest sound version of a day, and a sentence about what is damaged ("" for nothing).

    Raises
    ------
    CorruptionError : no version is sound. NotFound : all were replaced meanwhile.
    """
    sentence = ""
    for number in reversed(numbers):
        path = manifest_path(day, number)
        try:
            return Manifest.from_dict(unsealed_json(disk.read(path), path)), sentence
        except CorruptionError as e:
            sentence = sentence or str(e)
    if not sentence:
        raise NotFound(f"no manifest of day {day}")
    raise CorruptionError(sentence)


def write_manifest(disk: Disk, manifest: Manifest) -> bool:
    """Publish a version; False where another compactor was first."""
    return disk.put_if_absent(manifest.name, sealed_json(manifest.to_dict()))
