"""Topics of Sparkplug: ``spBv1.0/<group>/<kind>/<node>[/<device>]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.adapters.sparkplug.config import NAMESPACE

NODE_KINDS = ("NBIRTH", "NDATA", "NDEATH")
DEVICE_KINDS = ("DBIRTH", "DDATA", "DDEATH")
REBIRTH = "Node Control/Rebirth"


class NodeTopic(NamedTuple):
    """What a topic says: who, and what kind of message; `device` is empty for the node itself."""

    group: str
    kind: str
    node: str
    device: str = ""

    @property
    def node_id(self) -> tuple[str, str]:
        """The node, of which there is one in its group."""
        return self.group, self.node


def read_topic(topic: str) -> NodeTopic | None:
    """What a topic says; None where it is none of a node's own messages."""
    levels = topic.split("/")
    n_levels = 4 if len(levels) > 2 and levels[2] in NODE_KINDS else 5
    if levels[0] != NAMESPACE or len(levels) != n_levels or "" in levels:
        return None
    if levels[2] not in (NODE_KINDS if n_levels == 4 else DEVICE_KINDS):
        return None
    return NodeTopic(*levels[1:])


def filters(groups: Sequence[str]) -> list[str]:
    """What to subscribe to, for births, data and deaths of groups; not for commands, which are for nodes."""
    return [
        f"{NAMESPACE}/{group}/{kind}/{rest}"
        for group in groups
        for kinds, rest in ((NODE_KINDS, "+"), (DEVICE_KINDS, "+/+"))
        for kind in kinds
    ]


def state_topic(host_id: str) -> str:
    """Where a host says whether it is there."""
    return f"{NAMESPACE}/STATE/{host_id}"


def command_topic(node_id: tuple[str, str]) -> str:
    """Where a node takes commands."""
    return f"{NAMESPACE}/{node_id[0]}/NCMD/{node_id[1]}"
