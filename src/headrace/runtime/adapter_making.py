"""One adapter of a plant file, made: the same in the engine, in a gateway process and beside both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote

from headrace.adapters.base import Adapter, PlantFacts
from headrace.adapters.pacing import ConnectPacer
from headrace.adapters.registry import ADAPTERS
from headrace.core.config import PlantConfig
from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.problems import validate_section
from headrace.core.profile_tables import profiles_of
from headrace.runtime.treating import has_rules, rules_of, treated_kind

ADAPTER_STATE = "adapters"
"""Folder in the store with a folder for each adapter that keeps something; see `PlantFacts.state`."""


def make_adapter(
    config: PlantConfig,
    name: str,
    pacer: ConnectPacer | None = None,
    kind_of: Callable[[str], Any] = ADAPTERS.load,
) -> Adapter:
    """One adapter of a plant file, not started; no I/O but files beside the plant file. Raises `ConfigError`.

    Parameters
    ----------
    pacer : that it shares with others; one that is made later, alone, has its own. kind_of : the class of a protocol;
    a simulation has some of its own.
    """
    where, section = f"adapters.{name}", config.adapters[name]
    state = config.store_folder / ADAPTER_STATE / quote(name, safe="")
    plant, turns = config.plant, pacer or ConnectPacer()
    facts = PlantFacts(plant.levels, plant.timezone, config.folder, config.tables, turns, state)
    try:
        kind = kind_of(section.protocol)
    except HeadraceError as e:
        raise ConfigError(str(e), f"{where}.protocol") from e
    settings = validate_section(kind.Config, section.options, where)
    is_treated = has_rules(config, name, kind)
    made = treated_kind(kind) if is_treated else kind
    adapter: Any = made.from_config(name, settings, profiles_of(config, name), facts)
    if is_treated:
        adapter.signal_rules = rules_of(config, name, adapter)
        adapter.made_of = section.options, plant, config.folder
    return cast("Adapter", adapter)
