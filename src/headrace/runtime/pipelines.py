"""Which pipelines are in force at which place of the journal.

A change of pipelines is a CONFIG record, so that a replay of the journal changes them at the same place and gives
the same windows. A shard's snapshot says which pipelines it was taken under; a shard without one begins at the
journal's first record, before which there were none.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

from headrace.core.errors import ConfigError
from headrace.core.sensors import SensorDirectory
from headrace.ingest.journal_format import Record
from headrace.pipeline.flows import Flow, FlowSpec, spec_of_state
from headrace.pipeline.shard import branch_states


def config_payload(specs: Sequence[FlowSpec]) -> bytes:
    """Payload of the CONFIG record that puts pipelines in force."""
    return json.dumps({"pipelines": [spec.to_dict() for spec in specs]}, separators=(",", ":")).encode()


def key_of(spec: FlowSpec) -> str:
    """What two pipelines have in common that are the same."""
    return json.dumps(spec.to_dict(), sort_keys=True)


class PipelineHistory:
    """The pipelines of a store's past, as its journal and its snapshots know them.

    Parameters
    ----------
    wanted : the pipelines of today, compiled.
    """

    def __init__(self, directory: SensorDirectory, wanted: Sequence[Flow]) -> None:
        self._directory = directory
        self._wanted = tuple(wanted)
        self._compiled: dict[str, Flow | None] = {key_of(flow.spec): flow for flow in wanted}
        self._changes: list[tuple[int, tuple[Flow, ...]]] = []
        self._newest_state: tuple[int, tuple[Flow, ...]] | None = None
        self.sentences: list[str] = []

    def note(self, record: Record) -> None:
        """Take note of a CONFIG record; those without pipelines say nothing."""
        flows = self.flows_of(record)
        if flows is not None:
            self._changes.append((record.seq, flows))

    def flows_of(self, record: Record) -> tuple[Flow, ...] | None:
        """The pipelines that a CONFIG record puts in force."""
        found = json.loads(bytes(record.payload)).get("pipelines")
        return None if found is None else tuple(f for one in found if (f := self._flow(one)) is not None)

    def _flow(self, data: dict[str, Any]) -> Flow | None:
        """The pipeline, compiled once; None where it can't be run any more."""
        key = json.dumps(data, sort_keys=True)
        if key not in self._compiled:
            self._compiled[key] = None
            try:
                flow = self._compiled[key] = Flow(FlowSpec.from_dict(data), self._directory)
            except ConfigError as e:
                self.sentences.append(
                    f"pipeline {data['name']!r} of before can't be run any more ({e.message}); its last windows are lost"
                )
            else:
                with contextlib.suppress(ConfigError):  # told when it was put in force
                    flow.extend()
        return self._compiled[key]

    def before(self, state: bytes | memoryview, state_seq: int) -> tuple[Flow, ...]:
        """The pipelines under which a shard's snapshot was taken, or under which it begins where there is none.

        Raises
        ------
        CorruptionError : the state is none.
        """
        if state:
            flows = self._of_state(state)
            if self._newest_state is None or state_seq > self._newest_state[0]:
                self._newest_state = state_seq, flows
            return flows
        known = [flows for seq, flows in self._changes if seq <= state_seq]
        if known:
            return known[-1]
        return () if self._changes else self._wanted

    def _of_state(self, state: bytes | memoryview) -> tuple[Flow, ...]:
        found = []
        for name, part in branch_states(state).items():
            try:
                flow = self._flow(spec_of_state(name, part).to_dict())
            except ConfigError as e:
                self.sentences.append(f"pipeline {name!r} of before can't be run any more ({e.message})")
                continue
            if flow is not None:
                found.append(flow)
        return tuple(found)

    @property
    def is_present(self) -> bool:
        """Whether the pipelines of today are those that the journal ends with."""
        if self._changes:
            present = self._changes[-1][1]
        elif self._newest_state is not None:
            present = self._newest_state[1]
        else:
            present = ()
        return [key_of(f.spec) for f in present] == [key_of(f.spec) for f in self._wanted]
