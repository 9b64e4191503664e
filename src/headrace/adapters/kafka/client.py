"""The library's consumer, as the session needs it. Everything but `problem` is called from one thread.

The library connects, fetches and keeps our membership by threads of its own, for ever. It tells of losses through a
callback, from inside of `pull`; whether it is connected it does not tell, so somebody has to `ask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from headrace.adapters.kafka.config import StartAt, reason_of_library, sentence
from headrace.adapters.kafka.ledger import OffsetLedger, Place
from headrace.core.clock import monotonic_ns
from headrace.core.errors import ConfigError, NotConnected

SLICE_MESSAGES = 1_000
SLICE_S = 0.005
COMMIT_NS = 1_000_000_000
GAPS_MAX = 10
"""Partitions that are asked in a second where messages went that did not come."""
_IDLE_S = 0.1
_SETTLE_S = 0.5
_GAP_S = 1.0
_REFUSALS = {
    KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError._FENCED, KafkaError.FENCED_INSTANCE_ID,
}  # fmt: skip


class NotAdmitted(NotConnected):
    """The cluster does not want us: it helps no one to ask again before somebody changes something."""


class Spoilt(NotConnected):
    """The consumer is of no more use; another may be."""


class KafkaClient:
    """One consumer of a group, or of nobody's.

    Parameters
    ----------
    settings : of the library. timeout_s : longest wait for one answer.

    Raises
    ------
    ConfigError : the library does not take the settings.
    """

    def __init__(
        self, settings: dict[str, Any], ledger: OffsetLedger, start: StartAt, timeout_s: float = 10.0
    ) -> None:
        self._ledger = ledger
        self._start = start
        self._timeout_s = timeout_s
        self._commit_ns = 0
        self._is_closing = False
        self._refusal = ""
        self._is_down = False
        self._spoilt = ""
        self._last = ""
        self._kept: list[Message] = []
        self.is_held = self.is_subscribed = False
        self.complaint = ""
        """What the cluster refuses of what we want, while it gives the rest."""
        self.losses: list[str] = []
        """What was gone before it came here, until somebody has told of it."""
        try:
            self._consumer = Consumer({**settings, "error_cb": self._on_error, "on_commit": self._on_commit})
        except KafkaException as e:
            raise ConfigError(f"the settings can't be used: {reason_of_library(e)}") from e

    @property
    def consumer(self) -> Consumer:
        """The library's own, for what is not of a group."""
        return self._consumer

    def problem(self) -> NotConnected | None:
        """Why nothing comes; None while nothing is known to be wrong."""
        if self._refusal:
            return NotAdmitted(self._refusal)
        if self._spoilt:
            return Spoilt(self._spoilt)
        return NotConnected(self._last or "no broker answers") if self._is_down else None

    def ask(self, timeout_s: float) -> list[str] | None:
        """The topics of the cluster; None where it has not answered in time.

        Raises
        ------
        NotConnected : no broker can be reached. NotAdmitted : they refuse us.
        """
        self._hear()
        self._is_down = False
        try:
            found = self._consumer.list_topics(timeout=timeout_s)
        except KafkaException as e:
            self._hear()
            self._on_error(e.args[0])
            problem = self.problem()
            if problem is not None:
                raise problem from None
            return None
        self._hear()
        self._is_down = False  # what was heard is of the time before the answer
        return sorted(found.topics)

    def _hear(self) -> None:
        """Let the library tell what it has to; messages among it are kept."""
        for _ in range(SLICE_MESSAGES):
            message = self._consumer.poll(0)
            if message is None:
                return
            self._kept.append(message)

    def subscribe(self, patterns: Sequence[str]) -> None:
        """Join the group for the topics that match."""
        self.is_subscribed = True
        self._consumer.subscribe(
            list(patterns), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def pull(self) -> list[Message]:
        """What has come: at once where there is something, else within a tenth of a second. Commits what is due.

        Raises
        ------
        NotConnected : all brokers are lost. NotAdmitted : they refuse us.
        """
        self._keep_up()
        first = self._consumer.poll(_IDLE_S)
        if first is not None:
            self._kept.append(first)  # its partition may go before the rest is here
            rest = self._consumer.consume(SLICE_MESSAGES - 1, SLICE_S)
            self._kept += rest
        found, self._kept = self._kept, []
        out = [message for message in found if message.error() is None]
        if len(out) < len(found):
            self._complain([message for message in found if message.error() is not None])
        problem = self.problem()
        if problem is not None and not out:
            raise problem
        return out

    def _keep_up(self) -> None:
        """Commit what is due and see what is to come, every second."""
        if monotonic_ns() >= self._commit_ns:
            self._commit_ns = monotonic_ns() + COMMIT_NS
            self.commit()
            self._look_ahead()
            self._look_back()

    def _complain(self, errors: Sequence[Message]) -> None:
        for message in errors:
            error = message.error()
            assert error is not None
            if error.code() in _REFUSALS:
                self._on_error(error)
            else:
                self.complaint = sentence(error)

    def hold(self) -> None:
        """Fetch no more for now; membership and commits go on."""
        self._keep_up()
        if not self.is_held:
            self.is_held = True
            self._consumer.pause(self._consumer.assignment())
        message = self._consumer.poll(_IDLE_S)
        if message is not None:  # it was on its way
            self._kept.append(message)

    def go_on(self) -> None:
        """Fetch again."""
        if self.is_held:
            self.is_held = False
            self._consumer.resume(self._consumer.assignment())

    def commit(self) -> None:
        """Begin to commit what is due."""
        due = self._ledger.due()
        if due:
            self._consumer.commit(offsets=_offsets(due), asynchronous=True)

    def _look_ahead(self) -> None:
        for topic, number in self._ledger.progress():
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
            if end >= 0:
                self._ledger.set_end((topic, number), end)

    def _look_back(self) -> None:
        """Whether offsets that did not come are those of messages deleted before we could have them.

        There are others: marks of transactions, and what a compacted topic has of the same key later.
        """
        for place, offset in self._ledger.missed(GAPS_MAX).items():
            try:
                first, _ = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=_GAP_S)
            except KafkaException as e:
                self._last = f"where {place[0]}:{place[1]} begins can't be found out: {reason_of_library(e)}"
                return
            self._ledger.explain(place, is_gap=first > offset)
            if first > offset:
                self.losses.append(
                    f"topic={place[0]} partition={place[1]}: the cluster deleted messages from offset {offset} to "
                    f"{first - 1} before they came here; keep them longer (retention.ms), or be away for less long"
                )

    def close(self, is_reachable: bool) -> None:
        """Leave the group, after what is due is committed; where no broker answers, just end."""
        self._is_closing = True
        if is_reachable:
            self._consumer.close()
        del self._consumer

    # --- called by the library, inside of the calls above ---------------------------------------------

    def _on_error(self, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._ALL_BROKERS_DOWN:
            self._is_down = True
        elif code in _REFUSALS or error.fatal():
            self._refusal = sentence(error)
        elif code != KafkaError._TIMED_OUT and not error.str().startswith("Failed to get metadata"):
            self._last = sentence(error)

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        for one in partitions:
            self._ledger.commit_done(
                (one.topic, one.partition), one.offset, error is None and one.error is None
            )

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.complaint = ""
        progress: dict[Place, int] = {}
        try:
            progress = self._progress(consumer, partitions)
        except KafkaException as e:
            if not self._start.is_earliest:
                # All that is there would come, which nobody wants.
                self._spoilt = f"where to begin can't be found out: {reason_of_library(e)}"
                consumer.unassign()
                return
        self._ledger.assign(_places(partitions), progress)
        if self.is_held:
            consumer.assign(partitions)
            consumer.pause(partitions)

    def _progress(self, consumer: Consumer, partitions: list[TopicPartition]) -> dict[Place, int]:
        """Where the group is; where it has no progress yet it begins as we were told, and has it from then on."""
        known = consumer.committed(partitions, timeout=self._timeout_s)
        progress = {(one.topic, one.partition): int(one.offset) for one in known if one.offset >= 0}
        if not self._start.is_earliest:
            new = [place for place in _places(partitions) if place not in progress]
            first = {place: self._first_offset(consumer, TopicPartition(*place)) for place in new}
            if first:
                consumer.commit(offsets=_offsets(first), asynchronous=False)
            progress |= {place: offset for place, offset in first.items() if offset >= 0}
        return progress

    def _first_offset(self, consumer: Consumer, one: TopicPartition) -> int:
        if self._start.ts_ms is not None:
            wanted = TopicPartition(one.topic, one.partition, self._start.ts_ms)
            (found,) = consumer.offsets_for_times([wanted], timeout=self._timeout_s)
            if found.offset >= 0:
                return int(found.offset)
        _, end = consumer.get_watermark_offsets(one, timeout=self._timeout_s)
        return int(end) if end >= 0 else OFFSET_END

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = _places(partitions)
        if not self._is_closing:
            self._ledger.settle(places, _SETTLE_S)
        due = self._give_up(places)
        if due and not self._is_down:
            try:
                consumer.commit(offsets=_offsets(due), asynchronous=False)
            except KafkaException as e:
                self._last = f"what is durable could not be committed and comes again: {reason_of_library(e)}"

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(_places(partitions))

    def _give_up(self, places: Sequence[Place]) -> dict[Place, int]:
        """Forget these partitions; what may be committed of them still.

        Their messages that are kept here go too. Were a partition ours again, they would come before those that the
        group has yet to have, and be committed without them.
        """
        self._kept = [
            one
            for one in self._kept
            if one.error() is not None or (one.topic(), one.partition()) not in places
        ]
        return self._ledger.revoke(places)


def _places(partitions: Sequence[TopicPartition]) -> list[Place]:
    return [(one.topic, one.partition) for one in partitions]


def _offsets(due: dict[Place, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number, offset) for (topic, number), offset in due.items()]
