"""Messages of any topic → frame batches and rejects: the pure middle of every adapter that takes messages.

Rules are compiled once from the configuration; a topic's rule and device are looked up once and remembered.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headrace.adapters.payloads.base import PayloadDecoder, PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.keys import DeviceGroup, DeviceGroups
from headrace.adapters.payloads.rows import Decoded, Rows, make_reject
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.payloads.topics import (
    PathTemplate,
    TopicPattern,
    in_order,
    match_topic,
    parse_template,
    parse_topic,
)
from headrace.adapters.registry import PAYLOADS
from headrace.core.errors import ConfigError
from headrace.core.events import Reject, RejectCode
from headrace.core.paths import check_path
from headrace.core.problems import dotted

N_ROUTES_MAX = 200_000
_log = logging.getLogger("headrace.adapters.payloads")


@dataclass(frozen=True, slots=True)
class TopicRule:
    """One rule, compiled."""

    pattern: TopicPattern
    template: PathTemplate
    settings: RuleSettings
    decoder: PayloadDecoder


class _Route(NamedTuple):
    rule: TopicRule
    group: DeviceGroup


def compile_rules(
    topics: Mapping[str, RuleSettings], levels: tuple[str, ...], timezone: str, where: str
) -> list[TopicRule]:
    """The rules of an adapter, more specific ones first.

    Parameters
    ----------
    levels : names of a path's levels (empty: any number); timezone : of times without offset.
    where : dotted key of the table of topics, for the texts of problems.

    Raises
    ------
    ConfigError : no rule, or one that can't be; its key is told.
    """
    rules: dict[TopicPattern, TopicRule] = {}
    for topic, settings in topics.items():
        try:
            rule = _compile(topic, settings, levels, timezone)
        except ConfigError as e:
            raise ConfigError(e.message, where=dotted((*where.split("."), topic))) from e
        rules[rule.pattern] = rule
    if not rules:
        raise ConfigError(
            'there is no topic; name at least one: "plant/{device}" = { path = ... }', where=where
        )
    try:
        return [rules[pattern] for pattern in in_order(rules)]
    except ConfigError as e:
        raise ConfigError(e.message, where=where) from e


def _compile(topic: str, settings: RuleSettings, levels: tuple[str, ...], timezone: str) -> TopicRule:
    decoder = PAYLOADS.load(settings.values)(settings, TimeReader(settings.time_unit, timezone))
    pattern = parse_topic(topic)
    template = parse_template(settings.path, pattern.names, decoder.has_keys)
    check_path(template.fill(dict.fromkeys(pattern.names, "x")))
    n_levels = settings.path.count("/") + 1
    if levels and n_levels != len(levels):
        raise ConfigError(
            f"path {settings.path!r} has {n_levels} levels, expected {len(levels)}: {'/'.join(levels)}"
        )
    return TopicRule(pattern, template, settings, decoder)


class MessageRouter:
    """Decodes messages of one adapter instance; pure but for the groups it defines in the directory.

    Parameters
    ----------
    name : the adapter's, for rejects and as origin of batches.
    """

    def __init__(self, name: str, rules: Sequence[TopicRule], groups: DeviceGroups) -> None:
        self._name = name
        self._rules = rules
        self._groups = groups
        self._rows = Rows(name, groups)
        self._routes: dict[str, _Route] = {}
        self._has_failed = False

    def decode(self, messages: Sequence[TopicMessage], arrival_ns: int) -> Decoded:
        """Columns of all messages, and rejects; every value is in one or the other. Never raises."""
        for message in messages:
            try:
                self._read(message)
            except PayloadError as e:
                self._rows.refuse(message, e.code, e.detail, e.n_samples)
            except Exception as e:
                if not self._has_failed:
                    _log.exception("adapter=%s topic=%s: a decoder failed", self._name, message.topic)
                    self._has_failed = True
                self._rows.refuse(message, RejectCode.INTERNAL, f"decoder failed: {e!r}")
        return self._rows.build(arrival_ns)

    def again(self, message: TopicMessage) -> Decoded:
        """Decode a message of the past.

        Where it has no time of its own its frames get that of its arrival then, so that decoding it twice
        gives the same frames.
        """
        try:
            group = self._route(message.topic).group
        except PayloadError:
            return self.decode([message], message.arrival_ns)
        newest_ns, group.last_arrival_ns = group.last_arrival_ns, 0
        try:
            return self.decode([message], message.arrival_ns)
        finally:
            group.last_arrival_ns = newest_ns

    def defect(self, message: TopicMessage, error: Exception) -> Reject:
        """The reject of a message whose frames turned out to be wrong: a defect of ours."""
        return make_reject(self._name, message, RejectCode.INTERNAL, f"its frames were refused: {error}")

    def _read(self, message: TopicMessage) -> None:
        route = self._routes.get(message.topic)
        if route is None:
            if len(self._routes) >= N_ROUTES_MAX:
                self._routes.clear()
            route = self._routes[message.topic] = self._route(message.topic)
        rule, group = route
        if len(message.payload) > rule.settings.max_payload:
            detail = f"{len(message.payload):,} bytes, expected at most {rule.settings.max_payload:,}"
            raise PayloadError(RejectCode.TOO_LARGE, detail)
        rule.decoder.read(message, group, self._rows)

    def _route(self, topic: str) -> _Route:
        """The rule and device of a topic."""
        for rule in self._rules:
            names = match_topic(rule.pattern, topic)
            if names is not None:
                return _Route(rule, self._groups.group(self._path(rule, names), rule.settings))
        raise PayloadError(RejectCode.UNKNOWN_TOPIC, "no topic rule matches")

    @staticmethod
    def _path(rule: TopicRule, names: dict[str, str]) -> str:
        path = rule.template.fill(names)
        n_levels = rule.template.group.count("/")
        if path.count("/") != n_levels:
            raise PayloadError(
                RejectCode.BAD_PATH, f"path {path!r} has other levels than {rule.template.group!r}"
            )
        return path
