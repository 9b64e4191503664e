"""Messages of any topic → frame batches and rejects: the pure middle of every adapter that takes messages.

Rules are compiled once from the configuration; a topic's rule and device are looked up once and remembered. Messages of
one rule are read together where its decoder does that better; then they keep their order, but among other rules' not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.adapters.abilities import OWN_PATH
from headrace.adapters.payloads.base import (
    Decoded,
    ManyReader,
    MessageColumns,
    MessagePile,
    PayloadDecoder,
    PayloadError,
    RuleSettings,
    SliceDecoder,
    SliceReader,
    TopicMessage,
)
from headrace.adapters.payloads.columns import CodedTopics, joined
from headrace.adapters.payloads.keys import DeviceGroup, DeviceGroups
from headrace.adapters.payloads.rows import Rows, make_reject
from headrace.adapters.payloads.times import TimeReader
from headrace.adapters.payloads.topics import (
    MESSAGE_KEY,
    MQTT_TOPICS,
    PathTemplate,
    TopicDialect,
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
AGAIN_MIN = 32
"""So many messages that could not be read together are tried again, once one of each device has been read alone."""
N_READERS_MAX = 10_000
"""Readers of slices, each of which remembers what it has seen; beyond they begin anew."""
_DEVICE_BITS = 32
_DEVICE = (1 << _DEVICE_BITS) - 1
_UNKNOWN = -1
_log = logging.getLogger("headrace.adapters.payloads")


@dataclass(frozen=True, slots=True)
class TopicRule:
    """One rule, compiled; `reads_slices` says which kind its decoder is."""

    pattern: TopicPattern
    template: PathTemplate
    settings: RuleSettings
    decoder: PayloadDecoder | SliceDecoder
    reads_slices: bool = False
    has_key: bool = False
    """Whether the path names the key of messages."""


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
    """The rule of a topic, and who takes its messages; with `by_key` those of one key each."""

    rule: TopicRule
    taker: DeviceGroup | SliceReader | None
    pile: _Waiting | None
    names: dict[str, str]
    by_key: dict[bytes | None, _Route] | None


def compile_rules(
    topics: Mapping[str, RuleSettings],
    levels: tuple[str, ...],
    timezone: str,
    where: str,
    dialect: TopicDialect = MQTT_TOPICS,
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
            rule = _compile(topic, settings, levels, timezone, dialect)
        except ConfigError as e:
            raise ConfigError(e.message, where=dotted((*where.split("."), topic))) from e
        rules[rule.pattern] = rule
    if not rules:
        example = dialect.separator.join(("plant", "{device}"))
        raise ConfigError(
            f'there is no topic; name at least one: "{example}" = {{ path = ... }}', where=where
        )
    try:
        return [rules[pattern] for pattern in in_order(rules)]
    except ConfigError as e:
        raise ConfigError(e.message, where=where) from e


def _compile(
    topic: str, settings: RuleSettings, levels: tuple[str, ...], timezone: str, dialect: TopicDialect
) -> TopicRule:
    decoder = PAYLOADS.load(settings.values)(settings, TimeReader(settings.time_unit, timezone))
    pattern = parse_topic(topic, dialect.separator)
    names = (*pattern.names, MESSAGE_KEY) if dialect.has_keys else pattern.names
    reads_slices = hasattr(decoder, "reader")
    template = parse_template(
        settings.path, names, decoder.has_keys, reads_slices and bool(decoder.has_places)
    )
    check_path(template.fill(_AnyName()))
    n_levels = settings.path.count("/") + 1
    if levels and n_levels != len(levels):
        raise ConfigError(
            f"path {settings.path!r} has {n_levels} levels, expected {len(levels)}: {'/'.join(levels)}"
        )
    return TopicRule(pattern, template, settings, decoder, reads_slices, template.names(MESSAGE_KEY))


class _AnyName(dict[str, str]):
    """Has a value for every name, to see what a path would look like."""

    def get(self, name: str, default: object = None) -> str:
        return "x"


def _told_apart(rejects: list[Reject]) -> list[Reject]:
    """Rejects, those of different messages that came at the same time under one topic a nanosecond apart.

    A message without a time of its own gets that of its arrival, also where it is decoded once more: two of one device
    would be the same sample then. Rejects of one message have its bytes, and stay together.
    """
    if len(rejects) < 2:
        return rejects
    known: dict[tuple[str, int], dict[bytes, int]] = {}
    out = []
    for one in rejects:
        messages = known.setdefault((one.source, one.arrival_ns), {})
        place = messages.setdefault(one.raw, len(messages))
        out.append(replace(one, arrival_ns=one.arrival_ns + place) if place else one)
    return out


def own_path(rules: Sequence[TopicRule], address: str) -> str:
    """The path that rules give what is at an address: ``topic#key``, or ``topic`` where its messages are one value.

    Raises
    ------
    ConfigError : no rule takes the topic, the rule's messages have keys and the address none, or the other way round.
    """
    topic, mark, key = address.partition("#")
    for rule in rules:
        names = match_topic(rule.pattern, topic)
        if names is None:
            continue
        path = rule.template.fill(names)
        if rule.has_key or "{" in path:
            raise ConfigError(
                f"rule {rule.pattern.text!r} takes names from its messages: write {OWN_PATH} and the path that it gives"
            )
        if bool(mark) != rule.decoder.has_keys:
            need = f"one value: write {topic}" if mark else f"keys: write {topic}#KEY"
            raise ConfigError(f"messages of rule {rule.pattern.text!r} have {need}")
        return check_path(f"{path}/{key}" if mark else path)
    raise ConfigError(f"no rule of the adapter takes topic {topic!r}: write one under topics")


def written_address(rules: Sequence[TopicRule], topic: str, path: str) -> str:
    """Where the sensor at `path` comes from, as a table of tags writes it: the inverse of `own_path`."""
    for address in (f"{topic}#{path.rpartition('/')[2]}", topic):
        try:
            if own_path(rules, address) == path:
                return address
        except ConfigError:
            pass
    return f"{OWN_PATH}{path}"


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
        self._is_keyed = any(rule.has_key for rule in rules)
        self._codes: dict[str, dict[bytes | None, int]] = {}
        self._n_codes = 0
        self._code_of_topic: dict[str, int] = {}
        self._numbered: list[str] = []
        self._code_of = np.zeros(0, np.int64)
        self._n_looked_at, self._are_all_coded = 0, False
        self._at_once = PILE_BYTES
        self._piles: dict[TopicPattern, _Waiting] = {}
        self._readers: dict[tuple[TopicPattern, str], SliceReader] = {}
        self._waiting: dict[SliceReader, list[TopicMessage]] = {}
        self._n_routes = 0
        self._has_failed = False

    def decode(self, messages: Sequence[TopicMessage], arrival_ns: int) -> Decoded:
        """Columns of all messages, and rejects; every value is in one or the other. Never raises."""
        self._rows.arrival_ns = arrival_ns
        if not self._read_known(messages):
            self._read_any(messages)
        batches, rejects = self._rows.build(arrival_ns)
        rejects = _told_apart(rejects)
        waiting, self._waiting = self._waiting, {}
        for reader, some in waiting.items():
            try:
                read = reader.read(some)
            except Exception as e:
                for message in some:
                    self._fail(message, e)
                rejects += self._rows.build(arrival_ns).rejects
                continue
            batches += [batch.with_(arrival_ns=arrival_ns) for batch in read.batches]
            rejects += read.rejects
        return Decoded(batches, rejects)

    def _read_known(self, messages: Sequence[TopicMessage]) -> bool:
        """Read messages that are not too large, and all of topics whose messages wait for each other; else nothing is done.

        The usual case, without a step of Python for each message.
        """
        if not messages:
            return True
        topics: Sequence[str]
        payloads: Sequence[bytes]
        keys: Sequence[bytes | None]
        if isinstance(messages, MessageColumns):
            topics, payloads, keys = messages.topics, messages.payloads, messages.keys
        else:
            topics, payloads, _, _, keys, _ = zip(*messages, strict=True)
        codes = self._codes_of(topics, keys)
        if codes is None:
            return False
        payloads, piles = joined(payloads), self._piles.values()
        data = payloads.data
        if len(data) > self._at_once and not self._are_fit(payloads.lengths, len(data)):
            return False
        if len(piles) == 1:
            (pile,) = piles
            self._read_pile(pile, MessagePile(messages, payloads, data, codes, self._groups.devices))
            return True
        of_pile = codes >> _DEVICE_BITS
        for pile in piles:
            at = np.flatnonzero(of_pile == pile.number)
            if len(at):
                self._read_pile(pile, self._piled(_some(messages, at.tolist()), codes[at] & _DEVICE))
        return True

    def _codes_of(self, topics: Sequence[str], keys: Sequence[bytes | None]) -> npt.NDArray[np.int64] | None:
        """The piles and devices of messages; None where one of them has none."""
        if isinstance(topics, CodedTopics):
            return self._numbered_codes(topics)
        codes = self._known_codes(topics, keys)
        if codes is None and self._learn(dict.fromkeys(zip(topics, keys, strict=True))):
            return self._known_codes(topics, keys)
        return codes

    def _numbered_codes(self, topics: CodedTopics) -> npt.NDArray[np.int64] | None:
        """As `_codes_of`, of topics that have numbers, and no keys."""
        names = topics.names
        if self._numbered is not names or len(self._code_of) < len(names):
            known = self._code_of if self._numbered is names else self._code_of[:0]
            more = np.full(max(len(names), 2 * len(known)) - len(known), _UNKNOWN, np.int64)
            self._numbered, self._code_of = names, np.concatenate([known, more])
            self._n_looked_at = 0
        codes = self._code_of[topics.ids]
        if self._n_looked_at != len(names):
            self._n_looked_at = len(names)
            self._are_all_coded = bool((self._code_of[: len(names)] != _UNKNOWN).all())
        if self._are_all_coded:
            return codes
        if codes.min() == _UNKNOWN:
            new = np.unique(topics.ids[codes == _UNKNOWN]).tolist()
            if not self._learn((names[number], None) for number in new):
                return None
            self._code_of[new] = [self._code_of_topic.get(names[number], _UNKNOWN) for number in new]
            self._n_looked_at = 0
            codes = self._code_of[topics.ids]
            return None if codes.min() == _UNKNOWN else codes
        return codes

    def _known_codes(
        self, topics: Sequence[str], keys: Sequence[bytes | None]
    ) -> npt.NDArray[np.int64] | None:
        n = len(topics)
        try:
            if not self._is_keyed:
                return np.fromiter(map(self._code_of_topic.__getitem__, topics), np.int64, n)
            if topics.count(topics[0]) == n:  # as a rule: the keys tell devices apart
                return np.fromiter(map(self._codes[topics[0]].__getitem__, keys), np.int64, n)
            codes = self._codes
            return np.array([codes[topic][key] for topic, key in zip(topics, keys, strict=True)], np.int64)
        except KeyError:
            return None

    def _is_coded(self, topic: str, key: bytes | None) -> bool:
        return key in self._codes.get(topic, ()) if self._is_keyed else topic in self._code_of_topic

    def _learn(self, names: Iterable[tuple[str, bytes | None]]) -> bool:
        """Look up topics and keys that are new; False where messages of one of them do not wait for others."""
        for topic, key in names:
            if self._is_coded(topic, key):
                continue
            try:
                route = self._find(topic, key)
            except Exception:
                return False  # it is told of when its messages are read
            if route.pile is None:
                return False
            self._keep_code(topic, key, route)
        return True

    def _find(self, topic: str, key: bytes | None) -> _Route:
        """Who takes messages of a topic, and key. Raises PayloadError."""
        route = self._routes.get(topic)
        if route is None:
            route = self._routes[topic] = self._new_route(topic)
        return route if route.by_key is None else self._of_key(route, route.by_key, key)

    def _keep_code(self, topic: str, key: bytes | None, route: _Route) -> None:
        """Remember whose messages wait for each other in which pile."""
        if self._n_codes >= N_ROUTES_MAX:
            self._forget_codes()
        self._n_codes += not self._is_coded(topic, key)
        code = route.pile.number << _DEVICE_BITS | route.taker.number  # type: ignore[union-attr]
        if self._is_keyed:
            self._codes.setdefault(topic, {})[key] = code
        else:
            self._code_of_topic[topic] = code

    def _forget_codes(self) -> None:
        self._codes.clear()
        self._code_of_topic.clear()
        self._n_codes = 0

    def _are_fit(self, lengths: npt.NDArray[np.int64], n_bytes: int) -> bool:
        """Whether payloads can be read together: either all are small, or none is too large and all are not too many."""
        size, piles = int(lengths.max()), self._piles.values()
        if size <= min(pile.limit for pile in piles):
            return True
        return n_bytes <= PILE_BYTES and size <= min(pile.most for pile in piles)

    def _piled(self, messages: Sequence[TopicMessage], numbers: npt.NDArray[np.int64]) -> MessagePile:
        if isinstance(messages, MessageColumns):
            payloads = joined(messages.payloads)
        else:
            payloads = joined([message.payload for message in messages])
        return MessagePile(messages, payloads, payloads.data, numbers, self._groups.devices)

    def _read_any(self, messages: Sequence[TopicMessage]) -> None:
        """Read messages of any topic and size."""
        find = self._routes.get
        for message in messages:
            topic, payload, _, _, key, _ = message
            route = find(topic)
            if route is not None and route.by_key is not None:
                route = route.by_key.get(key)
            pile = None if route is None else route.pile
            if route is None or pile is None or len(payload) > pile.limit:
                self._guarded(self._take, message)
                continue
            pile.messages.append(message)
            pile.groups.append(route.taker)  # type: ignore[arg-type]
        for pile in self._piles.values():
            self._read_waiting(pile)

    def _guarded(self, read: Callable[[TopicMessage], None], message: TopicMessage) -> None:
        """Read a message; what can't be taken is refused."""
        try:
            read(message)
        except PayloadError as e:
            self._rows.refuse(message, e.code, e.detail, e.n_samples)
        except Exception as e:
            self._fail(message, e)

    def _fail(self, message: TopicMessage, error: Exception) -> None:
        """Refuse a message for a defect of ours."""
        if not self._has_failed:
            _log.error("adapter=%s topic=%s: a decoder failed", self._name, message.topic, exc_info=error)
            self._has_failed = True
        self._rows.refuse(message, RejectCode.INTERNAL, f"decoder failed: {error!r}")

    def again(self, message: TopicMessage) -> Decoded:
        """Decode a message of the past.

        Where it has no time of its own its frames get that of its arrival then, so that decoding it twice
        gives the same frames.
        """
        return self.decode([message._replace(time_ns=message.arrival_ns)], message.arrival_ns)

    def defect(self, message: TopicMessage, error: Exception) -> Reject:
        """The reject of a message whose frames turned out to be wrong: a defect of ours."""
        return make_reject(self._name, message, RejectCode.INTERNAL, f"its frames were refused: {error}")

    def _take(self, message: TopicMessage) -> None:
        """Read a message whose topic is new, or that is large or read alone; others are read together."""
        topic, payload = message.topic, message.payload
        route = self._find(topic, message.key)
        rule, taker, pile = route.rule, route.taker, route.pile
        if len(payload) > rule.settings.max_payload:
            detail = f"{len(payload):,} bytes, expected at most {rule.settings.max_payload:,}"
            raise PayloadError(RejectCode.TOO_LARGE, detail)
        if rule.reads_slices:
            self._waiting.setdefault(taker, []).append(message)  # type: ignore[arg-type]
            return
        if pile is None:
            rule.decoder.read(message, taker, self._rows)  # type: ignore[union-attr, arg-type]
            return
        self._keep_code(topic, message.key, route)
        pile.messages.append(message)
        pile.groups.append(taker)  # type: ignore[arg-type]
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
        left = self._read_many(waiting, pile)
        if len(left) >= AGAIN_MIN:
            # The first message of a device makes its keys known; with luck the others can be read together then.
            first = {int(pile.numbers[i]): i for i in reversed(left)}.values()
            self._read_alone(waiting, pile, sorted(first))
            rest = sorted(set(left).difference(first))
            pile = self._piled(_some(pile.messages, rest), pile.numbers[np.array(rest, np.int64)])
            left = self._read_many(waiting, pile) if rest else ()
        self._read_alone(waiting, pile, left)

    def _read_many(self, waiting: _Waiting, pile: MessagePile) -> Sequence[int]:
        """Read messages together; the numbers of those that are left."""
        try:
            return waiting.reader.read_many(pile, self._rows)
        except Exception:
            if not self._has_failed:
                _log.exception("adapter=%s: a decoder of many messages failed", self._name)
                self._has_failed = True
            return range(len(pile.messages))

    def _read_alone(self, waiting: _Waiting, pile: MessagePile, which: Sequence[int]) -> None:
        for i in which:
            group = pile.devices[int(pile.numbers[i])]
            self._guarded(partial(self._read_left, waiting.decoder, group), pile.messages[i])

    def _read_left(self, decoder: PayloadDecoder, group: DeviceGroup, message: TopicMessage) -> None:
        decoder.read(message, group, self._rows)

    def _new_route(self, topic: str) -> _Route:
        """The rule of a topic, and who takes its messages."""
        for rule in self._rules:
            names = match_topic(rule.pattern, topic)
            if names is not None:
                return self._route(rule, names, by_key={} if rule.has_key else None)
        raise PayloadError(RejectCode.UNKNOWN_TOPIC, "no topic rule matches")

    def _of_key(self, topic: _Route, by_key: dict[bytes | None, _Route], key: bytes | None) -> _Route:
        """Who takes messages of this topic and key."""
        if key is None:
            raise PayloadError(
                RejectCode.BAD_PATH, f"the message has no key, which its path names {{{MESSAGE_KEY}}}"
            )
        known = by_key.get(key)
        if known is None:
            try:
                names = {**topic.names, MESSAGE_KEY: key.decode()}
            except UnicodeDecodeError as e:
                raise PayloadError(RejectCode.BAD_PATH, f"the key of the message is not UTF-8: {e}") from None
            known = by_key[key] = self._route(topic.rule, names)
        return known

    def _route(
        self, rule: TopicRule, names: dict[str, str], by_key: dict[bytes | None, _Route] | None = None
    ) -> _Route:
        """Who takes messages of these names. Forgets all others where there are too many."""
        taker = self._taker(rule, names) if by_key is None else None
        self._n_routes += 1
        if self._n_routes > N_ROUTES_MAX:
            self._routes.clear()
            self._forget_codes()
            self._n_routes = 1
        return _Route(rule, taker, self._pile(rule), names, by_key)

    def _taker(self, rule: TopicRule, names: dict[str, str]) -> DeviceGroup | SliceReader:
        path = self._path(rule, names)
        if not rule.reads_slices:
            return self._groups.group(path, rule.settings)
        reader = self._readers.get((rule.pattern, path))
        if reader is None:
            if len(self._readers) >= N_READERS_MAX:
                self._readers.clear()
                self._routes.clear()
            decoder: SliceDecoder = rule.decoder  # type: ignore[assignment]
            reader = self._readers[rule.pattern, path] = decoder.reader(self._name, self._groups, path)
        return reader

    def _pile(self, rule: TopicRule) -> _Waiting | None:
        """Where messages of a rule wait for each other; None where they don't."""
        pile, reader = self._piles.get(rule.pattern), rule.decoder
        if pile is None and isinstance(reader, ManyReader):
            most = rule.settings.max_payload
            pile = _Waiting(rule.decoder, reader, min(TOGETHER_BYTES_MAX, most), most, len(self._piles))  # type: ignore[arg-type]
            self._piles[rule.pattern] = pile
            self._at_once = min(self._at_once, most)
        return pile

    @staticmethod
    def _path(rule: TopicRule, names: dict[str, str]) -> str:
        path = rule.template.fill(names)
        if rule.reads_slices and any("{" in name or "}" in name for name in names.values()):
            raise PayloadError(RejectCode.BAD_PATH, f"path {path!r} has a brace that the topic brings")
        n_levels = rule.template.group.count("/")
        if path.count("/") != n_levels:
            raise PayloadError(
                RejectCode.BAD_PATH, f"path {path!r} has other levels than {rule.template.group!r}"
            )
        return path


def _some(messages: Sequence[TopicMessage], which: Sequence[int]) -> Sequence[TopicMessage]:
    """The messages of these numbers."""
    return messages.some(which) if isinstance(messages, MessageColumns) else [messages[i] for i in which]


def warm_messages() -> None:
    """Compile the scanner of JSON, or load it from the cache: a message is decoded in memory, then others like it."""
    rules = compile_rules({"{device}": RuleSettings(path="{device}/{key}", time="ts")}, (), "UTC", "")
    router = MessageRouter("warm", rules, DeviceGroups(SensorDirectory()))
    for text in (b'{"ts":1.5,"a":1.5,"b":true,"c":"x","d":{"e":1}}', b'{"a":1}'):
        for _ in range(2):
            router.decode([TopicMessage("warm", text, 1)], 1)
