"""Manifests: what a partition holds, of the warm tier one UTC day each, of the cold tier 30.

``manifests/warm/<day>/<version>.json`` are created only if absent; the newest one counts. It names the day's
files and up to which commit of each incarnation the day's hot rows are in them. A reader takes the manifest,
then the hot rows of later commits. So a partition changes in one step, and there is no manifest of the whole
store for writers to fight over.

``manifests/cold/<bucket>/<version>.json`` likewise, of the days from 30 * bucket on. It names its files, among them those
of the warm tier whose rows stay as they are, and up to which version of each day's manifest the day's rows are in
them. That version and those before then say nothing any more; a later one holds what came since. A reader takes
the days' manifests first: what it sees in both places is in the cold one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound
from headrace.store.commits import SegmentInfo, checked, sealed_json, unsealed_json

WARM_MANIFESTS, COLD_MANIFESTS = "manifests/warm", "manifests/cold"
HOT_FOLDER, WARM_FOLDER, COLD_FOLDER = "segments/hot", "segments/warm", "segments/cold"
ROLLUP_FOLDER = "segments/rollups"
BUCKET_DAYS = 30
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a partition.

    Parameters
    ----------
    consumed : newest commit of each incarnation whose rows of this day are in `files`.
    left_out : hot segments among those that could not be read: they stay, and are read beside the files.
    is_whole : written after the day was over, all of it at once.
    aged : what was last found to be due by the rules of the tiers, and done; "" for nothing.
    rollups : files with rollups (`headrace.store.resolutions`) of the rows in `files`, but for those that are named
    `beside`: what came later. alone : those of them whose samples were dropped, all of each row.
    n_dropped : samples that were here and are no more, as the rules want.
    """

    day: int
    number: int = 0
    published_ns: int = 0
    files: tuple[SegmentInfo, ...] = ()
    consumed: dict[int, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    is_whole: bool = False
    aged: str = ""
    rollups: tuple[SegmentInfo, ...] = ()
    beside: tuple[str, ...] = ()
    n_dropped: int = 0
    alone: tuple[str, ...] = ()

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
        } | _rolled(self.rollups, self.alone) | self._beside() | _aged(self.aged, self.n_dropped)  # fmt: skip

    def _beside(self) -> dict[str, Any]:
        return {"beside": list(self.beside)} if self.beside else {}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Manifest:
        """The inverse of `to_dict`. Raises `CorruptionError`."""
        try:
            return cls(
                checked(data["day"], int), checked(data["number"], int), checked(data["published_ns"], int),
                tuple(SegmentInfo.from_dict(f) for f in data["files"]),
                {int(i): checked(m, int) for i, m in data["consumed"].items()},
                tuple(checked(name, str) for name in data["left_out"]), checked(data["is_whole"], bool),
                checked(data.get("aged", ""), str),
                tuple(SegmentInfo.from_dict(f) for f in data.get("rollups", ())),
                tuple(checked(name, str) for name in data.get("beside", ())), checked(data.get("n_dropped", 0), int),
                tuple(checked(name, str) for name in data.get("alone", ())),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise CorruptionError(f"its content is no manifest: {e!r}") from e


@dataclass(frozen=True, slots=True)
class DayTaken:
    """Up to where the rows of a day are in a cold partition: version of the day's manifest, and what that said.

    ``rollups`` are the day's, ``alone`` those of them whose samples were dropped; where ``is_late``, there are rows that
    came after these were made.
    """

    number: int
    consumed: dict[int, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    rollups: tuple[SegmentInfo, ...] = ()
    is_late: bool = False
    alone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColdManifest:
    """One version of a cold partition; `aged` and `n_dropped` as those of `Manifest`."""

    bucket: int
    number: int = 0
    published_ns: int = 0
    files: tuple[SegmentInfo, ...] = ()
    days: dict[int, DayTaken] = field(default_factory=dict)
    aged: str = ""
    n_dropped: int = 0

    @property
    def name(self) -> str:
        """Path in the store."""
        return manifest_path(self.bucket, self.number, COLD_MANIFESTS)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        days = {
            str(day): {
                "number": one.number,
                "consumed": {str(i): m for i, m in sorted(one.consumed.items())},
                "left_out": list(one.left_out),
            }
            | _rolled(one.rollups, one.alone)
            | ({"is_late": True} if one.is_late else {})
            for day, one in sorted(self.days.items())
        }
        return {
            "version": _VERSION, "bucket": self.bucket, "number": self.number, "published_ns": self.published_ns,
            "files": [f.to_dict() for f in self.files], "days": days,
        } | _aged(self.aged, self.n_dropped)  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises `CorruptionError`."""
        try:
            days = {
                int(day): DayTaken(
                    checked(one["number"], int),
                    {int(i): checked(m, int) for i, m in one["consumed"].items()},
                    tuple(checked(name, str) for name in one["left_out"]),
                    tuple(SegmentInfo.from_dict(f) for f in one.get("rollups", ())),
                    checked(one.get("is_late", False), bool),
                    tuple(checked(name, str) for name in one.get("alone", ())),
                )
                for day, one in data["days"].items()
            }
            return cls(
                checked(data["bucket"], int), checked(data["number"], int), checked(data["published_ns"], int),
                tuple(SegmentInfo.from_dict(f) for f in data["files"]), days,
                checked(data.get("aged", ""), str), checked(data.get("n_dropped", 0), int),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise CorruptionError(f"its content is no manifest: {e!r}") from e


def _rolled(rollups: tuple[SegmentInfo, ...], alone: tuple[str, ...]) -> dict[str, Any]:
    """What is written of rollups."""
    files = {"rollups": [f.to_dict() for f in rollups]} if rollups else {}
    return files | ({"alone": list(alone)} if alone else {})


def _aged(aged: str, n_dropped: int) -> dict[str, Any]:
    """What is written of it: nothing where there is nothing to say, as earlier releases did."""
    return ({"aged": aged} if aged else {}) | ({"n_dropped": n_dropped} if n_dropped else {})


M = TypeVar("M", Manifest, ColdManifest)


def manifest_path(key: int, number: int, folder: str = WARM_MANIFESTS) -> str:
    """``manifests/warm/<day>/<version>.json``, or that of another folder."""
    return f"{folder}/{key:06d}/{number:06d}.json"


def hot_path(incarnation: int, m: int) -> str:
    """``segments/hot/<incarnation>/<m>.parquet``: the segment of commit m."""
    return f"{HOT_FOLDER}/{incarnation:08d}/{m:08d}.parquet"


def hot_number(name: str) -> tuple[int, int]:
    """The inverse of `hot_path`."""
    *_, incarnation, file = name.split("/")
    return int(incarnation), int(file.removesuffix(".parquet"))


def list_manifests(disk: Disk, folder: str = WARM_MANIFESTS) -> dict[int, list[int]]:
    """Versions of each partition, oldest first."""
    return versions_of(disk.list(folder))


def versions_of(paths: Sequence[str]) -> dict[int, list[int]]:
    """Versions of each partition, oldest first, of the paths below a folder of manifests."""
    out: dict[int, list[int]] = {}
    for path in paths:
        parts = path.removesuffix(".json").split("/")
        if len(parts) == 4 and parts[2].lstrip("-").isdigit() and parts[3].isdigit():
            out.setdefault(int(parts[2]), []).append(int(parts[3]))
    return {key: sorted(numbers) for key, numbers in sorted(out.items())}


def read_manifest(disk: Disk, day: int, numbers: list[int]) -> tuple[Manifest, str]:
    """The newest sound version of a day, and a sentence about what is damaged ("" for nothing).

    Raises
    ------
    CorruptionError : no version is sound. NotFound : all were replaced meanwhile.
    """
    return _newest(disk, Manifest, [manifest_path(day, number) for number in numbers])


def read_cold_manifest(disk: Disk, bucket: int, numbers: list[int]) -> tuple[ColdManifest, str]:
    """The same of a cold partition."""
    return _newest(disk, ColdManifest, [manifest_path(bucket, number, COLD_MANIFESTS) for number in numbers])


def read_version(disk: Disk, kind: type[M], path: str) -> M:
    """One version. Raises `CorruptionError`, also where it is another's, and `NotFound`."""
    found = kind.from_dict(unsealed_json(disk.read(path), path))
    if found.name != path:
        raise CorruptionError(f"{path} is damaged: it holds {found.name}; restore it from a backup")
    return found


def _newest(disk: Disk, kind: type[M], paths: list[str]) -> tuple[M, str]:
    sentence = ""
    for path in reversed(paths):
        try:
            return read_version(disk, kind, path), sentence
        except CorruptionError as e:
            sentence = sentence or str(e)
    if not sentence:
        raise NotFound(f"no manifest {paths}")
    raise CorruptionError(sentence)


def write_manifest(disk: Disk, manifest: Manifest | ColdManifest) -> bool:
    """Publish a version; False where another compactor was first."""
    return disk.put_if_absent(manifest.name, sealed_json(manifest.to_dict()))
