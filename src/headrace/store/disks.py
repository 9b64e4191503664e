"""Which disk a store is on: a folder, or a folder and a bucket.

A store in a bucket still has a folder: the journal, which must be durable within milliseconds, refused input, applied
configurations and the announcement of a running engine stay there. Segments, commits, manifests, states, the sensor
directory, rollups and the ranges that bounds are shares of are objects of the bucket. ``store.json`` in the folder says which bucket, so that whoever opens
the folder finds the whole store.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from headrace.core.disk import BUCKET_SCHEMES, AppendFile, Buffer, Disk, LocalDisk, ReadFile
from headrace.core.errors import ConfigError, NotFound, PluginError, StorageError

if TYPE_CHECKING:
    from headrace.core.config import PlantConfig, StoreOptions

MARKER_FILE = "store.json"
OBJECT_FOLDERS = ("commits", "segments", "manifests", "state", "directory", "rollups", "tiers")
_VERSION = 1


class SplitDisk:
    """Objects in a bucket, everything else in a folder.

    Parameters
    ----------
    local : the folder. objects : the bucket. place : of the bucket, JSON-ready, as ``store.json`` has it.
    """

    def __init__(self, local: LocalDisk | NoFolder, objects: Disk, place: dict[str, Any]) -> None:
        self.local, self.objects, self.place = local, objects, place

    @property
    def url(self) -> str:
        """The bucket's."""
        return str(self.place["url"])

    @property
    def n_reads_at_once(self) -> int:
        """The bucket's, where the reads are that take time."""
        return self.objects.n_reads_at_once

    def _of(self, path: str) -> Disk:
        return self.objects if path.partition("/")[0] in OBJECT_FOLDERS else self.local

    def read(self, path: str) -> memoryview:
        return self._of(path).read(path)

    def open(self, path: str, size_bytes: int | None = None) -> ReadFile:
        return self._of(path).open(path, size_bytes)

    def prefetch(self, paths: Sequence[str]) -> None:
        self.objects.prefetch([path for path in paths if self._of(path) is self.objects])

    def put_if_absent(self, path: str, data: Buffer) -> bool:
        return self._of(path).put_if_absent(path, data)

    def replace(self, path: str, data: Buffer) -> None:
        self._of(path).replace(path, data)

    def append(self, path: str) -> AppendFile:
        return self._of(path).append(path)

    def truncate(self, path: str, size_bytes: int) -> None:
        self._of(path).truncate(path, size_bytes)

    def list(self, folder: str) -> list[str]:
        return self._of(folder).list(folder) if folder else sorted(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each file below `folder`, "" for all of the store."""
        if folder:
            return sizes_of(self._of(folder), folder)
        local = {
            path: size for path, size in sizes_of(self.local, "").items() if self._of(path) is self.local
        }
        return local | {
            path: size for one in OBJECT_FOLDERS for path, size in sizes_of(self.objects, one).items()
        }

    def size(self, path: str) -> int:
        return self._of(path).size(path)

    def delete(self, path: str) -> None:
        self._of(path).delete(path)

    def free_bytes(self) -> int:
        """The folder's; a bucket is never full."""
        return self.local.free_bytes()


class NoFolder:
    """What stands in for the folder of a store that is named by its bucket alone: empty, and not to be written to."""

    n_reads_at_once = 1

    def read(self, path: str) -> memoryview:
        raise NotFound(f"{path} does not exist")

    def open(self, path: str, size_bytes: int | None = None) -> ReadFile:
        raise NotFound(f"{path} does not exist")

    def prefetch(self, paths: Sequence[str]) -> None:
        return

    def put_if_absent(self, path: str, data: Buffer) -> bool:
        raise self._refused(path)

    def replace(self, path: str, data: Buffer) -> None:
        raise self._refused(path)

    def append(self, path: str) -> AppendFile:
        raise self._refused(path)

    def truncate(self, path: str, size_bytes: int) -> None:
        raise self._refused(path)

    def list(self, folder: str) -> list[str]:
        return []

    def size(self, path: str) -> int:
        raise NotFound(f"{path} does not exist")

    def delete(self, path: str) -> None:
        return

    def free_bytes(self) -> int:
        return 0

    @staticmethod
    def _refused(path: str) -> StorageError:
        return StorageError(
            f"can't write {path}: a store that is named by its bucket is only read; name its plant file or folder"
        )


def sizes_of(disk: Disk, folder: str) -> dict[str, int]:
    """Bytes of each file below `folder`; a bucket is asked once for all."""
    listed = getattr(disk, "sizes", None)
    if listed is not None:
        return dict(listed(folder))
    found = {}
    for path in disk.list(folder):
        with contextlib.suppress(NotFound):  # gone meanwhile
            found[path] = disk.size(path)
    return found


def is_cloud(where: str | Path) -> bool:
    """Whether a store's url names a bucket."""
    return str(where).startswith(tuple(f"{scheme}://" for scheme in BUCKET_SCHEMES))


def open_disk(where: str | Path) -> Disk:
    """The disk behind a folder or URL; what a folder's ``store.json`` says is followed.

    Raises
    ------
    ConfigError : it can't be opened. PluginError : it is in a bucket, and the library for it is not installed.
    """
    text = str(where)
    scheme, separator, _ = text.partition("://")
    if is_cloud(text):
        return _split(NoFolder(), {"url": text, "options": {}})
    if separator and scheme != "file":
        raise ConfigError(
            f"store {text!r}: {scheme}:// can't be opened; give a folder, or s3://, gs:// or az:// and a bucket",
            "store.url",
        )
    parts = urlsplit(text)
    if separator and (parts.netloc not in ("", "localhost") or not parts.path):
        raise ConfigError(f"store {text!r} is not a folder; write 'file:///var/lib/store'", "store.url")
    folder = unquote(parts.path) if separator else text.removeprefix("file:")
    local = LocalDisk(folder)
    place = _marked(local)
    return local if place is None else _split(local, place)


def plant_disk(config: PlantConfig, local: LocalDisk | None = None) -> Disk:
    """The disk that a plant file names; nothing is written.

    Parameters
    ----------
    local : its folder, where that is open already.

    Raises
    ------
    ConfigError : its folder belongs to another store, or is one. PluginError : see `open_disk`.
    """
    local = local or LocalDisk(config.store_folder)
    place = _place(config) if config.store.is_bucket else None
    marked = _marked(local)
    if marked is not None and (place is None or marked["url"] != place["url"]):
        raise ConfigError(
            f"the folder {config.store_folder} keeps the journal of {marked['url']}, and the plant file names "
            f"{config.store.url}; name that one, or another folder",
            "store.url",
        )
    if place is not None and marked is None and local.list("commits"):
        raise ConfigError(
            f"{config.store_folder} holds a whole store, which would be hidden by what is at {place['url']}; name "
            f"another folder, or move its folders there: {', '.join(OBJECT_FOLDERS)}",
            "store.folder",
        )
    return local if place is None else _split(local, place)


def mark_folder(disk: Disk) -> None:
    """Let the folder of a store in a bucket say so, and hand over what an earlier release kept there. Raises `StorageError`."""
    if isinstance(disk, SplitDisk):
        for path in disk.local.list("tiers"):
            disk.objects.put_if_absent(path, disk.local.read(path))
            disk.local.delete(path)
        text = json.dumps({"version": _VERSION, **disk.place}, indent=1)
        disk.local.replace(MARKER_FILE, text.encode() + b"\n")


def local_of(disk: Disk) -> LocalDisk | None:
    """The folder of a store, which is what its owner locks; None for disks that have none."""
    found = disk.local if isinstance(disk, SplitDisk) else disk
    return found if isinstance(found, LocalDisk) else None


def url_of(disk: Disk) -> str:
    """Where a store is, for people."""
    if isinstance(disk, SplitDisk):
        return disk.url
    return str(disk.root) if isinstance(disk, LocalDisk) else ""


def _place(config: PlantConfig) -> dict[str, Any]:
    options: StoreOptions = config.store.options
    if options.ca_file is not None:
        ca_file = str((config.folder / options.ca_file).absolute())
        options = options.model_copy(update={"ca_file": ca_file})
    return {
        "url": config.store.url.rstrip("/"),
        "options": options.model_dump(mode="json", exclude_none=True),
    }


def _marked(local: LocalDisk) -> dict[str, Any] | None:
    """What ``store.json`` says; None where there is none. Raises `ConfigError`."""
    try:
        found = json.loads(bytes(local.read(MARKER_FILE)))
        if found["version"] != _VERSION or not is_cloud(str(found["url"])):
            raise ValueError("it names no bucket that this version knows")
        return {"url": str(found["url"]), "options": dict(found["options"])}
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ConfigError(f"{local.root / MARKER_FILE} can't be read: {e}; restore it from a backup") from e


def _split(local: LocalDisk | NoFolder, place: dict[str, Any]) -> SplitDisk:
    return SplitDisk(local, bucket_disk(place["url"], place["options"]), place)


def bucket_disk(url: str, options: dict[str, Any] | None = None) -> Disk:
    """The objects below a bucket's url alone; nothing is asked for yet.

    Raises
    ------
    ConfigError : it can't be. PluginError : the library for it is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        from headrace.store.cloud import CloudDisk, CloudSettings
    except ModuleNotFoundError as e:
        raise PluginError(
            f"stores at {scheme}:// can't be opened: {e}; install it with: pip install 'headrace[cloud]'"
        ) from e
    from pydantic import ValidationError

    from headrace.core.clock import NS
    from headrace.core.config import StoreOptions

    try:
        found = StoreOptions.model_validate(options or {})
    except ValidationError as e:
        raise ConfigError(f"the options of {url} can't be read: {e.errors()[0]['msg']}") from e
    settings = CloudSettings(
        found.endpoint or "", found.region or "", found.account or "", found.ca_file or "", found.timeout / NS,
    )  # fmt: skip
    return CloudDisk(url, settings)
