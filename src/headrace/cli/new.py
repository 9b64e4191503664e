"""``headrace new plant`` and ``new plugin``: a beginning that works, to be changed."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError, StorageError
from headrace.core.registry import nearest

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_GROUPS = {"adapter": "adapters", "payload": "payloads", "operator": "operators", "codec": "codecs"}
_PLANT = """\
#:schema plant.schema.json
version = 1

[plant]
levels = ["site", "area", "line", "device", "signal"]  # names of the path's levels
timezone = "{timezone}"  # of times without an offset

[store]
url = "./store"
# rollups = "1m"  # each minute as plain Parquet in store/rollups/1m; or "off"

{adapters}
[pipelines.minutes]  # beside each sensor: its mean, lowest and highest of each minute
read = "**"
steps = [{{ op = "window", every = "1m", agg = ["mean", "min", "max"] }}]
write = "{{parent}}/{{signal}}_{{agg}}_1m"
"""
_CLASS_SUFFIX = {"adapter": "Adapter", "payload": "Decoder", "operator": "Operator", "codec": "Codec"}
_EXAMPLES = {
    "adapter": '[adapters.one]\nprotocol = "@NAME@"\nhost = "10.0.4.11"\nport = 4001\npath = "leon/paint/line1/oven1"\n'
    'signals = ["pressure", "level"]',
    "payload": '[adapters.broker.topics]\n"plant/{device}" = { path = "leon/paint/line1/{device}/{key}", values = "@NAME@" }',
    "operator": '[pipelines.marked]\nread = "**/temperature"\nsteps = [{ op = "@NAME@", above = 100 }]\n'
    'write = "{parent}/{signal}_marked"',
    "codec": "# codecs are chosen by the store",
}


@click.group(invoke_without_command=True)
@click.pass_context
def new(ctx: click.Context) -> None:
    """Begin a plant file, or a plug-in of your own."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@new.command(
    cls=TaughtCommand,
    examples=(
        "headrace new plant --adapter modbus",
        "headrace new plant --adapter mqtt --adapter modbus --timezone Europe/Madrid leon/plant.toml",
        "headrace new plant --adapter replay --dry-run     # on stdout only",
    ),
)
@click.argument("file", default="plant.toml", type=click.Path(path_type=Path))
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    required=True,
    metavar="NAME",
    help="What it reads: modbus, mqtt, ...; may be repeated.",
)
@click.option("--timezone", default="UTC", show_default=True, help="The plant's time zone.")
@click.option("--dry-run", is_flag=True, help="Write the file to stdout, and nothing to disk.")
@click.option("--yes", is_flag=True, help="Replace a file that is there.")
def plant(file: Path, adapters: tuple[str, ...], timezone: str, dry_run: bool, yes: bool) -> int:
    """Write a short, commented plant file for the adapters named, and its schema for editors beside it.

    It passes `headrace check` as it is; put your devices' addresses into it, then check and run it.
    """
    text = _plant_text(adapters, timezone)
    if dry_run:
        click.echo(text, nl=False)
        return Exit.DONE
    if file.exists() and not yes:
        raise ConfigError(f"{file} is there already; --yes replaces it, or name another file")
    import json

    from headrace.adapters.registry import ADAPTERS
    from headrace.core.config import json_schema

    models = {name: ADAPTERS.load(name).Config for name in adapters}
    schema = json.dumps(json_schema(models), indent=1) + "\n"
    _write({file: text, file.parent / "plant.schema.json": schema})
    click.echo(f"wrote {file} and {file.parent / 'plant.schema.json'}")
    output.note(f"next: put your devices into it, then\n  headrace check {file}\n  headrace run {file}")
    return Exit.DONE


def _plant_text(adapters: tuple[str, ...], timezone: str) -> str:
    import zoneinfo

    from headrace.adapters.registry import ADAPTERS

    try:
        zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ConfigError(
            f"{timezone!r} is not a time zone; write one such as Europe/Madrid", "--timezone"
        ) from e
    samples = []
    for name in dict.fromkeys(adapters):
        ADAPTERS.load(name)  # an unknown one is told with the nearest known
        package = ADAPTERS.targets()[name].partition(":")[0].rpartition(".")[0]
        sample = files(package).joinpath("sample.toml")
        if not sample.is_file():
            raise ConfigError(
                f"adapter {name} has no sample; see its page: headrace plugins list adapters --json"
            )
        samples.append(sample.read_text(encoding="utf-8").rstrip() + "\n")
    text = _PLANT.format(timezone=timezone, adapters="\n".join(samples))
    tomllib.loads(text)
    return text


@new.command(
    cls=TaughtCommand,
    examples=(
        "headrace new plugin operator spike_filter",
        "headrace new plugin adapter acme_plc --to ~/src",
        "cd headrace-spike-filter && pip install -e . && pytest",
    ),
)
@click.argument("kind")
@click.argument("name")
@click.option(
    "--to",
    "parent",
    default=".",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where its folder is made; default: here.",
)
@click.option("--dry-run", is_flag=True, help="Name the files, and write none.")
@click.option("--json", "as_json", is_flag=True, help="Folder and files as one JSON object.")
def plugin(kind: str, name: str, parent: Path, dry_run: bool, as_json: bool) -> int:
    """Make a package with a working plug-in NAME of a KIND: adapter, payload, operator or codec.

    The folder headrace-NAME has the part, its tests against Headrace's public kit (they pass as they are), and a
    pyproject.toml with the entry point by which every installed headrace finds it.
    """
    found = _plugin_files(kind, name)
    folder = parent / f"headrace-{name.replace('_', '-')}"
    if not dry_run:
        if folder.exists():
            raise ConfigError(f"{folder} is there already; choose another name or another --to")
        _write({folder / path: text for path, text in found.items()})
    if as_json:
        output.emit_json({"folder": str(folder), "files": sorted(found), "written": not dry_run})
        return Exit.DONE
    verb = "would write" if dry_run else "wrote"
    click.echo(f"{verb} {folder}:\n" + "\n".join(f"  {path}" for path in sorted(found)))
    if not dry_run:
        output.note(
            f"next:\n  cd {folder} && pip install -e . && pytest\n  headrace plugins list {_GROUPS[kind]}"
        )
    return Exit.DONE


def _plugin_files(kind: str, name: str) -> dict[str, str]:
    """Text of each file of a plug-in by its path in the folder."""
    if kind not in _GROUPS:
        raise ConfigError(f"no kind of plug-ins {kind!r}{nearest(kind, list(_GROUPS))}")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} can't name a plug-in; use lower-case letters, digits and _, a letter first"
        )
    from headrace.runtime.catalogue import find_plugins

    taken = {one.name: one.package for one in find_plugins(_GROUPS[kind])}
    if name in taken:
        raise ConfigError(f"there is {kind} {name!r} already, in {taken[name]}; choose another name")
    words = name.split("_")
    title = " ".join(words)
    values = {
        "NAME": name, "CLASS": "".join(w.capitalize() for w in words) + _CLASS_SUFFIX[kind], "MODULE": name,
        "PACKAGE": f"headrace_{name}", "DIST": f"headrace-{name.replace('_', '-')}", "GROUP": _GROUPS[kind],
        "TITLE": title[:1].upper() + title[1:], "CHECKS": "kit.VALUE_CHECKS",
    }  # fmt: skip
    values["EXAMPLE"] = _filled(_EXAMPLES[kind], values)
    package = f"src/headrace_{name}"
    templates = files("headrace.cli").joinpath("templates")

    def text(path: str) -> str:
        return _filled(templates.joinpath(path).read_text(encoding="utf-8"), values)

    return {
        "pyproject.toml": text("pyproject.toml.txt"),
        "README.md": text("README.md.txt"),
        f"{package}/__init__.py": f'"""{values["TITLE"]} for Headrace."""\n',
        f"{package}/{name}.py": text(f"{kind}/part.py.txt"),
        f"tests/test_{name}.py": text(f"{kind}/test_part.py.txt"),
    }


def _filled(template: str, values: dict[str, str]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], template)


def _write(texts: dict[Path, Any]) -> None:
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise StorageError(f"can't write {e.filename}: {e.strerror or e}") from e
