"""Configuration of the files adapter: ``[adapters.<name>]`` with ``protocol = "files"``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from headrace.adapters.payloads.line_rules import LineRule
from headrace.core.settings import DurationNs, Section

FileFormat = Literal["csv", "json", "lines", "parquet"]


class FileRule(LineRule):
    """Files of one kind: how they are written, and where their values go."""

    format: Literal["auto"] | FileFormat = Field(
        default="auto",
        description="auto goes by the name: .csv .tsv .txt; .json .jsonl .ndjson; .lp .line .influx; .parquet, also with "
        "what log rotation puts behind it; .gz is unpacked",
    )


class FilesConfig(Section):
    """A folder that is watched for files, and what is in them."""

    protocol: Literal["files"] = "files"
    folder: str = Field(description="the folder; a relative one lies beside the plant file")
    files: dict[str, FileRule] = Field(
        description='"{line}/{device}_*.csv" = { path = "leon/paint/{line}/{device}/{key}", time = "ts" }; the first that '
        "matches a file counts. * is any part of a name, ** any number of folders, {name} a part that the path may have",
    )
    interval: DurationNs = Field(
        default="1s", validate_default=True, description="between two looks at the folder"
    )
    finished_after: DurationNs = Field(
        default="1h",
        validate_default=True,
        description="a text file that did not change for so long is finished: its last line is taken even without a "
        "line break",
    )
    after: Literal["keep", "move", "delete"] = Field(
        default="keep", description="what becomes of a file that is finished once all of it is durable"
    )
    move_to: str | None = Field(
        default=None,
        description="folder for move, on the same disk; a relative one lies beside the plant file",
    )
    max_devices: int = Field(
        default=100_000, ge=1, description="devices that files may name; more are refused"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.after == "move") != (self.move_to is not None):
            raise ValueError('move_to = "FOLDER" belongs to after = "move"; write both or neither')
        return self
