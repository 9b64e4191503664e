"""Profiles: what one type of device reports, written once for all devices of it.

A profile may include others, and its addresses may have parameters that each device gives: ``holding:{base}:F32``,
``holding:{base+2}``, so that devices of one type whose tables begin elsewhere share one profile. Whatever a signal says
itself counts more than what is included; whatever a device gives counts more than the profile's own `parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field

from headrace.core.errors import ConfigError
from headrace.core.problems import Problem, dotted
from headrace.core.registry import nearest
from headrace.core.settings import Section, SignalSettings

Parameter = int | str
_PLACE = re.compile(r"\{([^{}]*)\}")
_TERM = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:([+-])\s*(\d+)\s*)?")
_NUMBER = re.compile(r"[+-]?\d+")


class ProfileSection(Section):
    """``[profiles.<name>]``: signals by name, and what they have in common with other profiles."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SignalSettings]

    include: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="profiles whose signals it has too, unless it has one of that name itself"
    )
    parameters: dict[str, Parameter] = Field(
        default={}, description="values of {name} in addresses, where a device gives none"
    )

    @property
    def signals(self) -> dict[str, SignalSettings]:
        """The signals written in it, without those of others."""
        return self.__pydantic_extra__

    def __getitem__(self, signal: str) -> SignalSettings:
        return self.signals[signal]


class Profile(dict[str, SignalSettings]):
    """All signals of a profile, with those that it includes.

    Parameters
    ----------
    parameters : values of what stands in braces in addresses, where a device gives none.
    """

    def __init__(self, signals: Mapping[str, SignalSettings], parameters: Mapping[str, Parameter]) -> None:
        super().__init__(signals)
        self.parameters = dict(parameters)


def included(name: str, sections: Mapping[str, ProfileSection]) -> list[str]:
    """A profile and all that it includes, the most common first and itself last.

    Raises
    ------
    ConfigError : there is no such profile, or they include each other.
    """
    out: dict[str, None] = {}
    _visit(name, sections, (), out)
    return list(out)


def _visit(
    name: str, sections: Mapping[str, ProfileSection], above: tuple[str, ...], out: dict[str, None]
) -> None:
    if name in above:
        raise ConfigError(f"profiles include each other: {' → '.join((*above, name))}")
    if name not in sections:
        raise ConfigError(f"no profile {name!r}{nearest(name, list(sections))}")
    for other in sections[name].include:
        _visit(other, sections, (*above, name), out)
    out.setdefault(name)


def inclusion_problems(sections: Mapping[str, ProfileSection]) -> list[Problem]:
    """Every profile that includes what is not there, or itself."""
    problems = []
    for name in sections:
        try:
            included(name, sections)
        except ConfigError as e:
            problems.append(Problem(dotted(("profiles", name, "include")), e.message))
    return problems


def resolve_profiles(sections: Mapping[str, ProfileSection]) -> dict[str, Profile]:
    """Every profile with what it includes.

    Raises
    ------
    ConfigError : as `included`.
    """
    out = {}
    for name in sections:
        signals: dict[str, SignalSettings] = {}
        parameters: dict[str, Parameter] = {}
        for one in included(name, sections):
            signals.update(sections[one].signals)
            parameters.update(sections[one].parameters)
        out[name] = Profile(signals, parameters)
    return out


def bind(profile: Mapping[str, SignalSettings], given: Mapping[str, Parameter]) -> dict[str, SignalSettings]:
    """The signals of a device: addresses with the values of its parameters.

    Parameters
    ----------
    given : what the device says; texts that are whole numbers can be added to.

    Raises
    ------
    ConfigError : a value is missing, is given for nothing, or is no number and added to.
    """
    defaults = profile.parameters if isinstance(profile, Profile) else {}
    values = {**defaults, **given}
    used: set[str] = set()
    out = {}
    for name, signal in profile.items():
        if "{" in signal.address:
            signal = signal.model_copy(update={"address": bound_address(signal.address, values, used)})
        out[name] = signal
    for name in given:
        if name not in used:
            known = sorted(used | set(defaults))
            raise ConfigError(f"the profile has no parameter {name!r}{nearest(name, known)}")
    return out


def bound_address(address: str, values: Mapping[str, Parameter], used: set[str] | None = None) -> str:
    """An address with the values of its parameters; `used` is given their names. Raises as `bind`."""
    names = set() if used is None else used
    return _PLACE.sub(lambda found: _value(found[1], values, names), address)


def _value(text: str, values: Mapping[str, Parameter], used: set[str]) -> str:
    term = _TERM.fullmatch(text)
    if term is None:
        raise ConfigError(f"{{{text}}} is no parameter; write {{base}} or {{base+2}}")
    name, sign, number = term[1], term[2], term[3]
    used.add(name)
    if name not in values:
        raise ConfigError(f"the device gives no value for {{{name}}}; write parameters = {{ {name} = ... }}")
    value = values[name]
    if sign is None:
        return str(value)
    if not _NUMBER.fullmatch(str(value)):
        raise ConfigError(
            f"{name} is {value!r}, to which nothing can be added: {{{text}}} needs a whole number"
        )
    return str(int(value) + int(sign + number))
