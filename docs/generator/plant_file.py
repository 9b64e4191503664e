"""The keys of ``plant.toml``: the models that check a plant file."""

from __future__ import annotations

import json
import tomllib
import types
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from importlib.resources import files
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from generator.prose import NOTICE, code, plain, table
from headrace.adapters.payloads.base import RuleSettings
from headrace.adapters.registry import ADAPTERS
from headrace.core import config, profiles, settings, tier_settings

HEAD = """\
# `plant.toml`

One file describes a plant. `headrace check` tells every problem in it at once, `headrace schema` writes a JSON schema
for editors, and Headrace never rewrites it.

- An unknown key is an error that names the nearest known one.
- A **duration** is text with a unit: `"250ms"`, `"5s"`, `"1m"`, `"2h"`, `"7d"`, `"1y"`. A **size** too: `"64MB"`, `"8GiB"`.
- A **pattern** matches whole paths: `*` one level, `**` any number of levels, `{a,b}` either.
- A **secret** is `{ env = "NAME" }` or `{ file = "PATH" }`, never the secret itself, and never inside a URL.
- Relative names of files start at the folder of the plant file.
- `--set KEY=VALUE` of `run` changes one key: `--set store.url=./other`.
- In TOML a key below a `[table]` line is part of that table: write an adapter's own keys above its `devices`.

The only key at the top is `version = 1`.
"""
PROFILES = """\
## `[profiles.NAME]` { #profiles }

What one type of device reports. Each key is a signal, each value a table:

```toml
[profiles.oven]
temperature = { address = "holding:100:F32;order=CDAB", unit = "degC", limits = [0, 400] }
```
"""
CALIBRATION = """\
### An entry of `calibration` { #calibration }

What was found out about a sensor. It holds from its date until the next one's; stored values stay what the device sent.
"""
PROFILE_KEYS = """\
### Keys of the profile itself { #profile-keys }

Addresses may have parameters, `holding:{base}` and `holding:{base+2}`, which each device gives: `parameters = { base = 100 }`,
or a column of its table.
"""
ADAPTERS_TEXT = """\
## `[adapters.NAME]` { #adapters }

A source of data. `protocol` says which adapter it is; it decides what else there is.

`tags = "ovens-tags.csv"`, with every adapter whose devices read by profiles: a CSV file beside the plant file with profiles of
the adapter's own, a line a signal: `profile, signal, address, unit, kind, low, high, labels` (states parted by `|`). `headrace
tags apply` [writes it](../how-to/onboarding.md). With every other adapter it is a table of the signals that are taken, and where
they go: `path, address, unit, kind, ...`; see [a table of tags](../how-to/signals.md#say-which-signals-are-taken-a-table-of-tags).

`process = "own"`, with every adapter: it runs in a process of its own instead of the engine (`"engine"`, the default). A library
that crashes or computes for long disturbs nobody else then, for 20 to 50 ns of CPU a sample.
[New code of an adapter](../how-to/operate.md#load-new-code-of-an-adapter) runs there in any case.
"""
SIGNALS = """\
### `[adapters.NAME.treatments]` { #adapter-treatments }

What is made of the values of sensors, with every adapter, by a pattern of their paths: see
[units, scales, calibrations](../how-to/signals.md). The most specific pattern counts:
`"**/temperature" = { unit = "degF", convert_to = "degC", limits = [-40, 400] }`.
"""
PIPELINES = """\
## `[pipelines.NAME]` { #pipelines }

What is computed as data come in. Raw samples are always stored; pipelines only add. The operators and their keys are
in [adapters, operators, codecs](parts.md#operators).
"""
CODECS = """\
## `[codecs.NAME]` { #codecs }

What is said about the codecs of some sensors; without it the smallest that proves itself wins, chunk by chunk. It counts
for chunks that are written from then on. See [choose codecs](../how-to/codecs.md); the names are in
[adapters, operators, codecs](parts.md#codecs).

```toml
[codecs.vibration]
match  = "**/vibration_*"
weight = 0.5                  # half way from small to fast to decode

[codecs.exchange]
match = "leon/**"
use   = "pco"
```
"""
TIERS = """\
## `[tiers.NAME]` { #tiers }

What becomes of samples as they age; see [tiers](../how-to/tiers.md). Without any, samples stay warm for ever.

```toml
[tiers.default]
match = "**"
after = { warm = "1d", cold = "30d", rollups = "1y", delete = "10y" }
bound = { range = 0.005 }
```
"""
_SECTIONS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("plant", config.PlantSection, "What all paths and times have in common."),
    ("store", config.StoreSection, "Where data stay, and how much may wait."),
    (
        "store.options", config.StoreOptions,
        "How a [bucket](../how-to/bucket.md) is reached, where `store.url` names one. Credentials are none of them: they "
        "come from the environment.",
    ),
)  # fmt: skip
_LAST: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("runtime", config.RuntimeSection, "How the work is spread."),
    ("api", config.ApiSection, "Where the process answers, and to whom."),
    (
        "api.tokens", config.TokensSection,
        "Who may do what; see [access from the network](../how-to/secure.md). A token has at least "
        f"{config.MIN_TOKEN_CHARACTERS} characters. Without any token, whoever is on this machine may do everything.",
    ),
)  # fmt: skip
_NAMED = {
    "_duration": "duration",
    "_size": "size",
    "_pattern": "pattern",
    "check_url": "URL",
    "_kind": "kind",
}
_PLAIN = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "`true` or `false`",
    datetime: "date",
    Any: "anything",
}


def page() -> str:
    """The page of all keys."""
    parts = [HEAD, NOTICE]
    for name, model, text in _SECTIONS:
        parts += [_section(name, model, text)]
    parts += [PROFILES, _keys(settings.SignalSettings), CALIBRATION, _keys(settings.Calibration)]
    parts += [PROFILE_KEYS, _keys(profiles.ProfileSection), ADAPTERS_TEXT]
    parts += [SIGNALS, _keys(settings.SignalTreatment)]
    for name in ADAPTERS.built_in:
        parts += [_adapter(name)]
    parts += [PIPELINES, _keys(config.PipelineSection)]
    parts += [CODECS, _keys(settings.CodecSettings)]
    parts += [TIERS, _keys(tier_settings.TierSection)]
    for key, model in (("after", tier_settings.TierAges), ("bound", tier_settings.TierBound)):
        parts += [f"### `{key}` {{ #tiers-{key} }}\n\n{_first_line(model)}\n\n{_keys(model)}"]
    for name, model, text in _LAST:
        parts += [_section(name, model, text)]
    return "\n".join(parts)


def _first_line(model: type[BaseModel]) -> str:
    return str(model.__doc__).partition("\n")[0]


def _section(name: str, model: type[BaseModel], text: str) -> str:
    return f"## `[{name}]` {{ #{name.replace('.', '-')} }}\n\n{text}\n\n{_keys(model)}"


def _adapter(name: str) -> str:
    package = ADAPTERS.built_in[name].partition(":")[0].rpartition(".")[0]
    manifest = tomllib.loads(files(package).joinpath("manifest.toml").read_text(encoding="utf-8"))
    model = ADAPTERS.load(name).Config
    text = f'### `protocol = "{name}"` {{ #adapter-{name} }}\n\n{manifest["title"]}; '
    text += f"what it does is in [its page](../../src/headrace/adapters/{name}/README.md).\n\n{_keys(model)}"
    for inner, title in _tables_of(model):
        text += f"\n**{title}**\n\n{_keys(inner)}"
    return text


def _tables_of(model: type[BaseModel]) -> list[tuple[type[BaseModel], str]]:
    """Models of the tables inside `model`, with a line that says where they stand."""
    titles = {RuleSettings: "A rule of `topics`", settings.SecretRef: ""}
    found = []
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            title = titles.get(inner, f"A table in `{name}`")
            if title:
                found.append((inner, title))
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _keys(model: type[BaseModel]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        if name == "protocol" or _is_section(field):
            continue
        rows.append(
            (code(field.alias or name), _type_of(field), _default(field), plain(field.description or ""))
        )
    return table(("key", "type", "default", "meaning"), rows)


def _is_section(field: FieldInfo) -> bool:
    """Whether a field is a table with a heading of its own, as ``[api.tokens]`` has."""
    own = config.TokensSection, config.StoreOptions
    return isinstance(field.annotation, type) and issubclass(field.annotation, own)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ({}, (), ""):
        return "–"
    if isinstance(value, BaseModel) or (isinstance(value, dict) and _is_of_models(value)):
        return "–"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, tuple):
        return "–" if all(v is None for v in value) else code(json.dumps(list(value)))
    return code(json.dumps(value))


def _is_of_models(value: dict[str, Any]) -> bool:
    """Whether a default is a table of tables, which its meaning tells better."""
    return any(isinstance(one, BaseModel) for one in value.values())


def _type_of(field: FieldInfo) -> str:
    return _type(field.annotation, tuple(field.metadata))


def _type(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    named = _named(metadata)
    if named == "kind":
        return _choices(k.name.lower() for k in settings.Kind)
    if named:
        return named
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], tuple(_flat(arguments[1:])))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in arguments if part is not types.NoneType))
    if origin is Literal:
        return _choices(arguments)
    if origin in (dict, Mapping):
        return f"table of {_many(_type(arguments[1]))}"
    if origin is tuple:
        return _list(arguments)
    if annotation is settings.SecretRef:
        return "secret"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _choices(str(member.value) for member in annotation)
    return _PLAIN[annotation] + _bounds(metadata)


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    return [inner for one in metadata for inner in (one.metadata if isinstance(one, FieldInfo) else [one])]


def _list(arguments: tuple[Any, ...]) -> str:
    if arguments[-1] is Ellipsis:
        return f"list of {_many(_type(arguments[0]))}"
    return f"list of {len(arguments)} {_many(_type(arguments[0]))}"


def _many(kind: str) -> str:
    """``table of anything`` → ``tables``: what is inside is said where it stands."""
    return {"text": "texts", "number": "numbers", "table": "tables", "table of anything": "tables"}.get(
        kind, kind
    )


def _choices(words: Any) -> str:
    return ", ".join(code(json.dumps(word)) for word in words)


def _named(metadata: tuple[Any, ...]) -> str:
    for one in metadata:
        if isinstance(one, AfterValidator | BeforeValidator):
            name = getattr(one.func, "__name__", "")
            if name in _NAMED:
                return _NAMED[name]
    return ""


def _bounds(metadata: tuple[Any, ...]) -> str:
    low = high = above = None
    for one in metadata:
        if isinstance(one, annotated_types.Ge):
            low = one.ge
        elif isinstance(one, annotated_types.Le):
            high = one.le
        elif isinstance(one, annotated_types.Gt):
            above = one.gt
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    if low is not None:
        return f", {low:,} or more"
    return f", above {above:,}" if above is not None else ""
