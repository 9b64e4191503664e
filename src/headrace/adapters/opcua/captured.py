"""Answers that are listened to, and answers that were captured, decoded once more: without a server.

Values carry the numbers that we gave their variables. A capture says which variables had which numbers by a mark; one
that was made when the adapter had others can't be decoded, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from headrace.adapters.abilities import Captured, Direction, Listener
from headrace.adapters.opcua.client import ServiceFailed
from headrace.adapters.opcua.filing import Filing
from headrace.adapters.opcua.handles import UNKNOWN, Handles
from headrace.adapters.opcua.messages import Values, numbered, publish_answer, read_answer
from headrace.adapters.opcua.tags import TagTable
from headrace.core.errors import Rejected
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch

N_HANDLES_MAX = 10_000_000
"""Handles of one connection that a captured answer may tell of."""


@dataclass(slots=True)
class AnswerTap:
    """Who listens to an adapter's answers, if anybody."""

    mark: str
    listener: Listener | None = None

    def hear(
        self, ts_ns: int, server: str, body: bytes, handles: Handles, read: Sequence[int] | None = None
    ) -> None:
        """An answer as it came; `read`: handles that a read asked for, None where it was published."""
        if self.listener is not None:
            about = {"variables": self.mark} | _numbers_told(handles, read)
            self.listener(Captured(ts_ns, server, body, about=about))


def _numbers_told(handles: Handles, read: Sequence[int] | None) -> dict[str, str]:
    """Which tags the values of an answer are, where that is not plain; those of variables that are none are left out."""
    if read is None:
        if handles.are_tags:
            return {}
        numbers, tags = handles.present
        return {"handles": ranges_text(numbers), "tags": ranges_text(tags)}
    found = handles.tags(read)
    places = np.flatnonzero(found >= 0)
    told = {"tags": ranges_text(found[places].tolist())}
    return told if len(places) == len(found) else told | {"places": ranges_text(places.tolist())}


def mark_of(tags: TagTable) -> str:
    """The same for the same variables in the same order."""
    digest = xxhash.xxh3_64()
    for tag in range(len(tags)):
        digest.update(f"{tags.path(tag)} {tags.address(tag)}\n".encode())
    return digest.hexdigest()


def ranges_text(numbers: Sequence[int]) -> str:
    """Numbers, in short where they rise by one: ``0-9,12``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" for first, last in runs)


def numbers_of(text: str, most: int) -> list[int]:
    """What `ranges_text` was made of. Raises ValueError: it is none, or goes beyond `most`."""
    out: list[int] = []
    for run in text.split(","):
        first, _, last = run.partition("-")
        if not 0 <= int(first) <= int(last) < most:
            raise ValueError(f"{run!r} is no range of variables")
        out.extend(range(int(first), int(last) + 1))
    return out


def decode_answers(
    name: str, tags: TagTable, filing: Filing, captured: Sequence[Captured]
) -> tuple[list[FrameBatch], list[Reject]]:
    """Frames of all answers, and what is refused."""
    mark = mark_of(tags)
    batches: list[FrameBatch] = []
    rejects: list[Reject] = []
    for one in captured:
        if one.direction is Direction.SENT:
            continue
        try:
            for values in _values(one, mark, len(tags)):
                filed = filing.file(values, one.ts_ns)
                batches += filed.batches
                rejects += filed.rejects
        except (Rejected, ServiceFailed, ValueError) as e:
            raw = one.data[:MAX_RAW_BYTES]
            rejects.append(Reject(RejectCode.MALFORMED, name, one.source, str(e), raw, one.ts_ns))
    return batches, rejects


def _values(one: Captured, mark: str, n_tags: int) -> Iterator[Values]:
    """The values of an answer by tag. Raises what `decode_answers` refuses, behind the values that are good."""
    if one.about.get("variables") != mark:
        raise Rejected("it was captured when the adapter had other variables")
    if "tags" not in one.about or "handles" in one.about:
        yield from _published_values(one, n_tags)
        return
    tags, values = _tags_told(one, n_tags), read_answer(one.data)
    if "places" in one.about:
        yield _of_tags(_known(one.about["places"], tags), values)
    elif len(values) != len(tags):
        raise Rejected(f"{len(values)} values for {len(tags)} nodes")
    else:
        yield numbered(values, tags)


def _published_values(one: Captured, n_tags: int) -> Iterator[Values]:
    answer = publish_answer(one.data)
    handles = _known(one.about["handles"], _tags_told(one, n_tags)) if "handles" in one.about else None
    for values in answer.values:
        yield values if handles is None else _of_tags(handles, values)
    if answer.surplus:
        raise Rejected(answer.surplus)


def _tags_told(one: Captured, n_tags: int) -> list[int]:
    return numbers_of(one.about["tags"], n_tags) if one.about["tags"] else []


def _known(numbers: str, tags: Sequence[int]) -> Handles:
    """Handles, or places in a request, with the tags that they were."""
    found = numbers_of(numbers, N_HANDLES_MAX) if numbers else []
    return Handles.of(dict(zip(found, tags, strict=True)))


def _of_tags(handles: Handles, values: Values) -> Values:
    """Those whose variable was a tag when they came: others were not read any more, or not yet."""
    taken, _ = handles.take(values)
    return taken.rows(taken.columns.tag != UNKNOWN)
