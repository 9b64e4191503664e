"""What a command is about: a plant file, a store's folder or bucket, or the address of a running engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headrace.core.disk import BUCKET_SCHEMES, Disk, LocalDisk
from headrace.core.errors import Unreachable
from headrace.runtime.announcement import EngineClient, is_store, read_announcement

if TYPE_CHECKING:
    from headrace.core.config import PlantConfig

F = TypeVar("F", bound=Callable[..., Any])
PLANT_FILE = "plant.toml"
ENVIRONMENT = "HEADRACE_TARGET"


def target_option(command: F) -> F:
    """Add ``-t``; the command's argument `target` is its text, None where it was left out."""
    return click.option(
        "-t",
        "--target",
        metavar="TARGET",
        help=f"Plant file, store folder or bucket, or http address; default: ${ENVIRONMENT}, else ./{PLANT_FILE}.",
    )(command)


@dataclass(frozen=True)
class Target:
    """A target that exists.

    Parameters
    ----------
    text : as it was named. folder : its store; None for an address. config : of a plant file.
    address : of an engine that was named by its address. bucket : url of a store that was named by its bucket.
    """

    text: str
    folder: Path | None = None
    config: PlantConfig | None = None
    address: str | None = None
    bucket: str | None = None

    @property
    def zone(self) -> tzinfo:
        """The plant's time zone; UTC where only the store is known."""
        return UTC if self.config is None else self.config.plant.zone

    def engine(self) -> EngineClient | None:
        """The running engine; None where none announces itself.

        An address is taken at its word: whether somebody answers there shows when it is asked.
        """
        if self.address is not None:
            return EngineClient.at(self.address)
        if self.bucket is not None:
            return None
        found = read_announcement(LocalDisk(self.store_folder))
        return None if found is None else EngineClient.announced(found)

    def running(self, timeout_s: float | None = None) -> EngineClient:
        """The running engine, for what only it can do.

        Parameters
        ----------
        timeout_s : how long an answer may take, where that is long.

        Raises
        ------
        Unreachable : none runs.
        """
        engine = self.engine()
        if engine is None:
            raise Unreachable(f"no engine runs on {self.text}; start it with: headrace run")
        if timeout_s is not None:
            engine.timeout_s = timeout_s
        return engine

    @property
    def store_folder(self) -> Path:
        """The store's folder; a running engine that was named by its address is asked for it.

        Raises
        ------
        Unreachable : nobody answers, the store is not on this machine, or only its bucket is known.
        """
        if self.folder is not None:
            return self.folder
        if self.bucket is not None:
            raise Unreachable(
                f"{self.bucket} is only a bucket, which knows of no journal and no engine; name the plant file with -t"
            )
        folder = Path(str(EngineClient.at(str(self.address)).json("/api/v1/status")["store"]["folder"]))
        if not folder.is_dir():
            raise Unreachable(
                f"the engine at {self.address} keeps its store in {folder}, which is not on this machine; "
                "run the command there"
            )
        return folder

    def open_disk(self, is_asked: bool = False) -> Disk:
        """The whole store, for reading; `is_asked`: a running engine would have been asked first.

        Raises
        ------
        Unreachable : there is no store. ConfigError, PluginError : it can't be opened.
        """
        from headrace.store.disks import open_disk, plant_disk

        if self.bucket is not None:
            from headrace.runtime.restoring import is_backup

            if is_backup(self.bucket):
                raise Unreachable(_backup_at(self.bucket))
            return open_disk(self.bucket)
        if self.config is not None and self.config.store.is_bucket:
            return plant_disk(self.config)
        folder = self.store_folder
        if not is_store(folder):
            if is_asked:
                raise Unreachable(
                    f"no engine runs and {folder} holds no store yet; start it with: headrace run"
                )
            raise Unreachable(f"{folder} holds no store yet; headrace run makes one")
        return open_disk(folder)


def find_target(text: str | None) -> Target:
    """The target that ``-t``, the environment or the present folder name.

    Raises
    ------
    Unreachable : there is nothing. ConfigError : the plant file has problems.
    """
    named = text or os.environ.get(ENVIRONMENT, "")
    if named.startswith(("http://", "https://")):
        return Target(named, address=named)
    if named.startswith(tuple(f"{scheme}://" for scheme in BUCKET_SCHEMES)):
        return Target(named, bucket=named)
    path = Path(named or PLANT_FILE)
    if path.is_file():
        from headrace.core.config import load_plant

        config = load_plant(path)
        return Target(str(path), config.store_folder, config)
    if path.is_dir():
        if is_store(path):
            return Target(named, path)
        if (path / "catalogue.json").is_file():
            raise Unreachable(_backup_at(named))
        raise Unreachable(
            f"{named} is a folder, but no store; name a store, a plant file or an http address with -t"
        )
    if not named:
        raise Unreachable(
            f"there is no {PLANT_FILE} here; name a plant file, a store or an http address with -t"
        )
    raise Unreachable(f"{named} does not exist; -t takes a plant file, a store folder or an http address")


def _backup_at(where: str) -> str:
    return f"{where} is a backup; make a store of it: headrace store restore {where} --to FOLDER"
