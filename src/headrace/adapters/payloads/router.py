"""Messages of any topic → frame batches and rejects: the pure middle of every adapter that takes messages.

Rules are compiled once from the configuration; a topic's rule and device are looked up once and remembered. Messages of
one rule are read together where its decoder does that better; then they keep their order, but among other rules' not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.payloads.base import (
    ManyReader,
    MessagePile,
    PayloadDecoder,
    PayloadError,
    RuleSettings,
    TopicMessage,
)
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
from headrace.core.sensors import SensorDirectory

N_ROUTES_MAX = 200_000
TOGETHER_BYTES_MAX = 1_024
"""Payloads up to this are read together however many there are, ..."""
PILE_BYTES = 4 << 20
"""... larger ones until they are so many bytes."""
_DEVICE_BITS = 32
_DEVICE = (1 << _DEVICE_BITS) - 1
_log = logging.getLogger("headrace.adapters.payloads")


@dataclass(frozen=True, slots=True)
class TopicRule:
    """One rule, compiled."""

    pattern: TopicPattern
    template: PathTemplate
    settings: RuleSettings
    decoder: PayloadDecoder


@dataclass(eq=False, slots=True)
class _Waiting:
    """Messages of one rule that are read together, and their devices.

    `limit` is up to what size nobody asks more, `most` up to what size they are taken.
    """

    decoder: PayloadDecoder
    reader: ManyReader
    limit: int
    most: int
    number: int
    messages: list[TopicMessage] = field(default_factory=list)
    groups: list[DeviceGroup] = field(default_factory=list)
    n_bytes: int = 0


class _Route(NamedTuple):
    rule: TopicRule
    group: DeviceGroup
    pile: _Waiting | None


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
        self._codes: dict[str, int] = {}
        self._at_once = PILE_BYTES
        self._piles: dict[TopicPattern, _Waiting] = {}
        self._has_failed = False

    def decode(self, messages: Sequence[TopicMessage], arrival_ns: int) -> Decoded:
        """Columns of all messages, and rejects; every value is in one or the other. Never raises."""
        self._rows.arrival_ns = arrival_ns
        if not self._read_known(messages):
            self._read_any(messages)
        return self._rows.build(arrival_ns)

    def _read_known(self, messages: Sequence[TopicMessage]) -> bool:
        """Read messages that are not too large, and all of topics whose messages wait for each other; else nothing is done.

        The usual case, without a step of Python for each message.
        """
        if not messages:
            return True
        topics, payloads, _ = zip(*messages, strict=True)
        try:
            codes = np.fromiter(map(self._codes.__getitem__, topics), np.int64, len(topics))
        except KeyError:
            return False
        data, piles = b"".join(payloads), self._piles.values()
        if len(data) > self._at_once and not self._are_fit(payloads, len(data)):
            return False
        if len(piles) == 1:
            (pile,) = piles
            self._read_pile(pile, MessagePile(messages, payloads, data, codes, self._groups.devices))
            return True
        of_pile = codes >> _DEVICE_BITS
        for pile in piles:
            at = np.flatnonzero(of_pile == pile.number)
            if len(at):
                self._read_pile(pile, self._piled([messages[i] for i in at.tolist()], codes[at] & _DEVICE))
        return True

    def _are_fit(self, payloads: Sequence[bytes], n_bytes: int) -> bool:
        """Whether payloads can be read together: either all are small, or none is too large and all are not too many."""
        size, piles = max(map(len, payloads)), self._piles.values()
        if size <= min(pile.limit for pile in piles):
            return True
        return n_bytes <= PILE_BYTES and size <= min(pile.most for pile in piles)

    def _piled(self, messages: Sequence[TopicMessage], numbers: npt.NDArray[np.int64]) -> MessagePile:
        payloads = [message.payload for message in messages]
        return MessagePile(messages, payloads, b"".join(payloads), numbers, self._groups.devices)

    def _read_any(self, messages: Sequence[TopicMessage]) -> None:
        """Read messages of any topic and size."""
        find = self._routes.get
        for message in messages:
            topic, payload, _ = message
            route = find(topic)
            pile = None if route is None else route.pile
            if route is None or pile is None or len(payload) > pile.limit:
                self._guarded(self._take, message)
                continue
            pile.messages.append(message)
            pile.groups.append(route.group)
        for pile in self._piles.values():
            self._read_waiting(pile)

    def _guarded(self, read: Callable[[TopicMessage], None], message: TopicMessage) -> None:
        """Read a message; what can't be taken is refused."""
        try:
            read(message)
        except PayloadError as e:
            self._rows.refuse(message, e.code, e.detail, e.n_samples)
        except Exception as e:
            if not self._has_failed:
                _log.exception("adapter=%s topic=%s: a decoder failed", self._name, message.topic)
                self._has_failed = True
            self._rows.refuse(message, RejectCode.INTERNAL, f"decoder failed: {e!r}")

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

    def _take(self, message: TopicMessage) -> None:
        """Read a message whose topic is new, or that is large or read alone; others are read together."""
        topic, payload, _ = message
        route = self._routes.get(topic)
        if route is None:
            if len(self._routes) >= N_ROUTES_MAX:
                self._routes.clear()
                self._codes.clear()
            route = self._routes[topic] = self._route(topic)
            if route.pile is not None:
                self._codes[topic] = route.pile.number << _DEVICE_BITS | route.group.number
        rule, group, pile = route
        if len(payload) > rule.settings.max_payload:
            detail = f"{len(payload):,} bytes, expected at most {rule.settings.max_payload:,}"
            raise PayloadError(RejectCode.TOO_LARGE, detail)
        if pile is None:
            rule.decoder.read(message, group, self._rows)
            return
        pile.messages.append(message)
        pile.groups.append(group)
        pile.n_bytes += len(payload)
        if pile.n_bytes >= PILE_BYTES:
            self._read_waiting(pile)

    def _read_waiting(self, pile: _Waiting) -> None:
        """Read what waits of one rule."""
        messages, groups = pile.messages, pile.groups
        if not messages:
            return
        pile.messages, pile.groups, pile.n_bytes = [], [], 0
        self._read_pile(pile, self._piled(messages, np.array([group.number for group in groups], np.int64)))

    def _read_pile(self, waiting: _Waiting, pile: MessagePile) -> None:
        """Read messages of one rule together, and those that are left one by one."""
        left: Sequence[int] = range(len(pile.messages))
        try:
            left = waiting.reader.read_many(pile, self._rows)
        except Exception:
            if not self._has_failed:
                _log.exception("adapter=%s: a decoder of many messages failed", self._name)
                self._has_failed = True
        for i in left:
            group = pile.devices[int(pile.numbers[i])]
            self._guarded(partial(self._read_left, waiting.decoder, group), pile.messages[i])

    def _read_left(self, decoder: PayloadDecoder, group: DeviceGroup, message: TopicMessage) -> None:
        decoder.read(message, group, self._rows)

    def _route(self, topic: str) -> _Route:
        """The rule and device of a topic."""
        for rule in self._rules:
            names = match_topic(rule.pattern, topic)
            if names is not None:
                group = self._groups.group(self._path(rule, names), rule.settings)
                return _Route(rule, group, self._pile(rule))
        raise PayloadError(RejectCode.UNKNOWN_TOPIC, "no topic rule matches")

    def _pile(self, rule: TopicRule) -> _Waiting | None:
        """Where messages of a rule wait for each other; None where they don't."""
        pile, reader = self._piles.get(rule.pattern), rule.decoder
        if pile is None and isinstance(reader, ManyReader):
            most = rule.settings.max_payload
            pile = _Waiting(rule.decoder, reader, min(TOGETHER_BYTES_MAX, most), most, len(self._piles))
            self._piles[rule.pattern] = pile
            self._at_once = min(self._at_once, most)
        return pile

    @staticmethod
    def _path(rule: TopicRule, names: dict[str, str]) -> str:
        path = rule.template.fill(names)
        n_levels = rule.template.group.count("/")
        if path.count("/") != n_levels:
            raise PayloadError(
                RejectCode.BAD_PATH, f"path {path!r} has other levels than {rule.template.group!r}"
            )
        return path


def warm_messages() -> None:
    """Compile the scanner of JSON, or load it from the cache: a message is decoded in memory, then others like it."""
    rules = compile_rules({"{device}": RuleSettings(path="{device}/{key}", time="ts")}, (), "UTC", "")
    router = MessageRouter("warm", rules, DeviceGroups(SensorDirectory()))
    for text in (b'{"ts":1.5,"a":1.5,"b":true,"c":"x","d":{"e":1}}', b'{"a":1}'):
        for _ in range(2):
            router.decode([TopicMessage("warm", text, 1)], 1)
