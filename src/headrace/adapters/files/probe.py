"""What files would become, for a person who takes a plant into service; and refused lines, decoded once more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from headrace.adapters.abilities import Captured, FoundTag
from headrace.adapters.base import PlantFacts
from headrace.adapters.files.config import FileRule
from headrace.adapters.files.folder import (
    ParquetSource,
    ReadingFailed,
    SeenFile,
    look,
    read_head,
    rule_of,
)
from headrace.adapters.files.patterns import CompiledRule, compile_file_rule, format_of
from headrace.adapters.meters import reason_of
from headrace.adapters.payloads.arrow import record_batches
from headrace.adapters.payloads.base import Decoded, PayloadError
from headrace.adapters.payloads.chunks import (
    ChunkDecoder,
    LineChunk,
    LineFormats,
    cut_line_protocol,
    cut_lines,
    device_path,
)
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.tables import TableColumns, TableReader
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError, NotConnected
from headrace.core.events import MAX_RAW_BYTES, Reject
from headrace.core.frames import FrameBatch
from headrace.core.problems import validate_section
from headrace.core.quality import word
from headrace.core.readings import Reading, readings
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory

PROBED_BYTES = 64 << 10
PROBED_ROWS = 200
FILES_MAX = 100
VALUES_MAX = 2_000
DEFAULT_TIME, DEFAULT_PATH = "ts", "file/{key}"
FoundReading = tuple[Reading, str]
"""A reading and its value type."""
_KEPT = ("csv", "json", "lines")


def line_decoder(formats: LineFormats, rule: CompiledRule, kind: str, names: dict[str, str]) -> ChunkDecoder:
    """The decoder of a text file. Raises PayloadError: its path can't name a device."""
    if kind == "lines":
        return formats.lines(rule.rule, rule.series)
    return (formats.csv if kind == "csv" else formats.json)(rule.rule, rule.paths, names)


def table_reader(formats: LineFormats, rule: CompiledRule, names: dict[str, str]) -> TableReader:
    """The reader of a Parquet file. Raises as `line_decoder`."""
    given = rule.rule
    device = device_path(rule.paths, names)
    columns = TableColumns(given.time or DEFAULT_TIME, given.value, device, given.only)
    return TableReader(formats.origin, formats.groups, formats.times(given), columns, given.settings)


@dataclass(frozen=True, slots=True)
class FileProbe:
    """Looks at the beginnings of files; blocks. Parameters as `FilesAdapter` has them."""

    name: str
    root: Path
    rules: Sequence[CompiledRule]
    plant: PlantFacts
    skipped: Path | None
    now_ns: int

    def report(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        """Each file, its rule, and what came of its first lines, JSON-ready. Raises ConfigError, NotConnected."""
        files = []
        for seen, found, problems in self._look(wanted):
            values = [
                {"path": r.path, "ts_ns": r.ts_ns, "value": r.value, "quality": word(r.quality)}
                for r, _ in found
            ]
            files.append({
                "file": seen.name, "bytes": seen.size_bytes, "rule": self.rules[seen.rule].pattern.text,
                "values": values, "problems": problems,
            })  # fmt: skip
        return {"protocol": "files", "folder": str(self.root), "files": files, **_shown(files)}

    def tags(self, wanted: Mapping[str, str]) -> list[FoundTag]:
        """The sensors that files name, with their first values. Raises as `report`."""
        out = []
        for seen, found, problems in self._look(wanted):
            units = self.rules[seen.rule].rule.units
            first = {r.path: (r, dtype) for r, dtype in reversed(found)}
            for path, (r, dtype) in first.items():
                device, _, name = path.rpartition("/")
                dtype = "string" if isinstance(r.value, str) else dtype
                address, unit = f"{seen.name}:{name}", units.get(name, "")
                tag = FoundTag(device, name, address, dtype, unit, value=r.value, ts_ns=r.ts_ns)
                out.append(replace(tag, quality=word(r.quality)))
            out += [FoundTag("", seen.name, seen.name, problem=problem) for problem in problems]
        return out

    def _look(self, wanted: Mapping[str, str]) -> Iterator[tuple[SeenFile, list[FoundReading], list[str]]]:
        for key in wanted:
            if key != "file":
                raise ConfigError(f"files are looked at by file{nearest(key, ['file'])}", key)
        try:
            view = look(self.root, self.rules, frozenset(), self.skipped)
        except OSError as e:
            raise NotConnected(f"{self.root}: {reason_of(e)}") from e
        by_name = {seen.name: seen for seen in view.files}
        name = wanted.get("file")
        if name is not None and name not in by_name:
            raise ConfigError(f"no rule is for a file {name!r}{nearest(name, list(by_name))}", "file")
        some = [by_name[name]] if name else self._newest(view.files)
        for seen in some:
            yield self._open(seen)

    def _newest(self, files: Sequence[SeenFile]) -> list[SeenFile]:
        """The newest of each rule and device, as far as names tell."""
        found: dict[tuple[int, str], SeenFile] = {}
        for seen in sorted(files, key=lambda seen: seen.mtime_ns):
            template = self.rules[seen.rule].paths.template
            names = self.rules[seen.rule].pattern.match(seen.name) or {}
            found[seen.rule, template.fill(names) if template else ""] = seen
        return list(found.values())[-FILES_MAX:]

    def _open(self, seen: SeenFile) -> tuple[SeenFile, list[FoundReading], list[str]]:
        rule = self.rules[seen.rule]
        directory = SensorDirectory()
        formats = LineFormats(
            self.name, directory, DeviceGroups(directory), self.plant.levels, self.plant.timezone
        )
        kind = format_of(seen.name, rule.rule)
        names = rule.pattern.match(seen.name) or {}
        try:
            if kind is None:
                return seen, [], ["its name does not say how it is written; set format in its rule"]
            if kind == "parquet":
                done = self._table(seen, table_reader(formats, rule, names))
            else:
                done = self._lines(seen, line_decoder(formats, rule, kind, names), kind)
        except OSError as e:
            return seen, [], [reason_of(e)]
        except (ReadingFailed, PayloadError) as e:
            return seen, [], [str(e)]
        found = [(r, b.dtype) for b in done.batches for r in readings(b, directory, VALUES_MAX)]
        return seen, found[:VALUES_MAX], [f"{r.source}: {r.code}: {r.detail}" for r in done.rejects]

    def _lines(self, seen: SeenFile, decoder: ChunkDecoder, kind: str) -> Decoded:
        data = read_head(self.root / seen.name, PROBED_BYTES)
        if len(data) == PROBED_BYTES:
            data = data[: cut_line_protocol(data) if kind == "lines" else cut_lines(data)]
        return decoder.decode(LineChunk(seen.name, data, 1, self.now_ns))

    def _table(self, seen: SeenFile, reader: TableReader) -> Decoded:
        source = ParquetSource(self.root / seen.name, seen.key)
        try:
            for table in source.read(0) if source.n_groups else ():
                return Decoded(*reader.read(table.slice(0, PROBED_ROWS), seen.name))
        finally:
            source.close()
        return Decoded([], [])


def _shown(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Files as people are shown them; see `Probes`."""
    facts = [[one["file"], f"{one['bytes']:,} bytes, rule {one['rule']}"] for one in files]
    rows = []
    for one in files:
        rows += [[v["path"], v["ts_ns"], v["value"], v["quality"]] for v in one["values"]]
        rows += [[one["file"], NO_TIME, None, problem] for problem in one["problems"]]
    return {"facts": facts, "table": {"columns": ["path or file", "ts_ns", "value", "quality"], "rows": rows}}


def rule_of_url(wanted: Mapping[str, str]) -> tuple[Path, CompiledRule]:
    """Folder and rule of one file: ``url`` is file:///folder/name, all else are options of a rule.

    Without ``path`` its sensors are file/KEY; an empty one says that lines name their sensors. Raises ConfigError.
    """
    parts = urlsplit(wanted["url"])
    file = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not file.is_absolute():
        raise ConfigError(f"{wanted['url']!r} is no file here; write one as in file:///data/oven.csv", "url")
    options: dict[str, Any] = {"path": DEFAULT_PATH, **{k: v for k, v in wanted.items() if k != "url"}}
    if not options["path"] or format_of(file.name, FileRule()) == "lines":
        del options["path"]
    rule = validate_section(FileRule, options, "options")
    return file.parent, compile_file_rule(file.name, rule, ())


def table_bytes(table: pa.RecordBatch) -> bytes:
    """A part of a Parquet file by itself: as an Arrow stream."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_batch(table)
    return bytes(out.getvalue())


def _decode_table(one: Captured, rule: CompiledRule, formats: LineFormats) -> Decoded:
    """What becomes of a part of a Parquet file. Raises PayloadError."""
    reader = table_reader(formats, rule, rule.pattern.match(one.source) or {})
    done = Decoded([], [])
    for table in record_batches(one.data):
        batches, rejects = reader.read(table, f"{one.source}:{one.about.get('part', '')}")
        done = Decoded([*done.batches, *batches], [*done.rejects, *rejects])
    return done


def decode_parts(
    captured: Sequence[Captured], rules: Sequence[CompiledRule], formats: LineFormats
) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
    """What becomes of parts of files, in the order in which they were read, by the present rules."""
    decoders: dict[str, ChunkDecoder] = {}
    batches: list[FrameBatch] = []
    rejects: list[Reject] = []
    for one in captured:
        number = rule_of(one.source, rules)
        kind = format_of(one.source, rules[number].rule) if number >= 0 else None
        if kind is None:
            continue
        rule, line = rules[number], one.about.get("line", "1")
        try:
            if kind == "parquet":
                line = one.about.get("part", line)
                done = _decode_table(one, rule, formats)
            else:
                if one.source not in decoders or line == "1":
                    names = rule.pattern.match(one.source) or {}
                    decoder = decoders[one.source] = line_decoder(formats, rule, kind, names)
                    decoder.learn(one.about.get("head", "").encode("latin-1"))
                done = decoders[one.source].decode(LineChunk(one.source, one.data, int(line), one.ts_ns))
        except PayloadError as e:
            reject = Reject(
                e.code, formats.origin, f"{one.source}:{line}", e.detail, one.data[:MAX_RAW_BYTES]
            )
            done = Decoded([], [replace(reject, arrival_ns=one.ts_ns, n_samples=e.n_samples)])
        batches += done.batches
        rejects += done.rejects
    return batches, rejects


def again(
    reject: Reject, rules: Sequence[CompiledRule], formats: LineFormats
) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
    """What becomes of a refused line by the present rules; see `Redecodes`."""
    name, _, line = reject.source.rpartition(":")
    number = rule_of(name, rules)
    why = ""
    if not line.isdecimal() or not reject.raw:
        why = "no line of it was kept; mend the file and put it into the folder under another name"
    elif len(reject.raw) >= MAX_RAW_BYTES:
        why = f"only the first {MAX_RAW_BYTES:,} bytes of it were kept; mend the line and put it into another file"
    elif number < 0:
        why = f"no rule is for a file {name!r}"
    else:
        rule = rules[number]
        kind = format_of(name, rule.rule)
        if kind not in _KEPT:
            why = "it is not written in lines by its present rule; put it into the folder under another name"
        else:
            try:
                decoder = line_decoder(formats, rule, kind, rule.pattern.match(name) or {})
                return decoder.again(reject.raw, reject.source, reject.arrival_ns)
            except PayloadError as e:
                why = e.detail
    return [], [replace(reject, detail=why)]
