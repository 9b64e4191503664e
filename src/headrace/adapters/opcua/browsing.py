"""What a server offers, from a node down: variables with their path of browse names, type, unit and value.

Bounded in depth and in number. What the server gives piece by piece (continuation points) is asked for to the end.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua

from headrace.adapters.abilities import FoundTag
from headrace.adapters.opcua.addresses import NodeAddress, parse_node
from headrace.adapters.opcua.asking import ServerLimits, in_batches
from headrace.adapters.opcua.client import UaConnection, read_request
from headrace.adapters.opcua.kinds import BOOLEAN, NO_PART, PARTS, TEXT, kind_text, part_of, quality_of
from headrace.adapters.opcua.messages import Values, read_answer
from headrace.adapters.opcua.scanner import ARRAY
from headrace.adapters.opcua.statuses import status_text
from headrace.adapters.opcua.texts import value_at
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.quality import word
from headrace.core.registry import nearest

SCAN_WANTED = ("url", "device", "node", "depth", "max")
DEPTH, N_MAX = 8, 10_000
N_REFERENCES_MAX = 1_000
"""References that are asked for at a time; of nodes with more the rest comes piece by piece."""
_OBJECTS, _SERVER, _HIERARCHICAL, _HAS_PROPERTY = 85, 2_253, 33, 46
_UNIT = "EngineeringUnits"
_CLASSES = int(ua.NodeClass.Object) | int(ua.NodeClass.Variable)
_BAD = 0x8000_0000
_FORMS = {
    ua.NodeIdType.TwoByte: "i", ua.NodeIdType.FourByte: "i", ua.NodeIdType.Numeric: "i", ua.NodeIdType.String: "s",
    ua.NodeIdType.Guid: "g", ua.NodeIdType.ByteString: "b",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Browsing:
    """Where to begin and how far to go."""

    start: NodeAddress
    depth: int = DEPTH
    n_max: int = N_MAX

    @classmethod
    def of(cls, wanted: Mapping[str, str]) -> Browsing:
        """From ``node`` (default: the objects folder), ``depth`` and ``max``.

        Raises
        ------
        ConfigError : an unknown word, or one that is not what it should be.
        """
        for key in wanted:
            if key not in SCAN_WANTED:
                raise ConfigError(f"an opcua scan knows no {key!r}{nearest(key, list(SCAN_WANTED))}", key)
        depth, n_max = (_number(wanted, key, default) for key, default in (("depth", DEPTH), ("max", N_MAX)))
        return cls(parse_node(wanted.get("node") or f"i={_OBJECTS}"), depth, n_max)


def _number(wanted: Mapping[str, str], key: str, default: int) -> int:
    text = wanted.get(key, str(default))
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"{text!r} is no number above 0", key)
    return int(text)


@dataclass(slots=True)
class _Found:
    """A variable: its node, names above it and its own, and the node of its unit where it has one."""

    node: ua.NodeId
    path: tuple[str, ...]
    unit_node: ua.NodeId | None = None
    unit: str = ""


@dataclass(slots=True)
class _Frontier:
    """What has been met and what is still to be looked into."""

    variables: dict[ua.NodeId, _Found] = field(default_factory=dict)
    seen: set[ua.NodeId] = field(default_factory=set)
    next: list[tuple[ua.NodeId, tuple[str, ...]]] = field(default_factory=list)


async def scan_server(connection: UaConnection, browsing: Browsing) -> Sequence[FoundTag]:
    """Every variable below a node.

    Raises
    ------
    ConfigError : there are more than `browsing.n_max`, or the server does not know the namespace of the first node.
    NotConnected, TimeoutError, ServiceFailed : of the connection.
    """
    try:
        start = connection.node_id(browsing.start)
    except LookupError as e:
        raise ConfigError(str(e.args[0]), "node") from e
    limits = await ServerLimits.ask(connection, N_REFERENCES_MAX)
    frontier = _Frontier(seen={start, ua.NodeId(_SERVER)}, next=[(start, ())])
    for _ in range(browsing.depth):
        level, frontier.next = frontier.next, []
        places = range(len(level))

        async def browse(some: Sequence[int], level: list[Any] = level) -> None:
            await _browse(connection, [level[i] for i in some], frontier)
            if len(frontier.variables) > browsing.n_max:
                raise ConfigError(
                    f"there are more than {browsing.n_max:,} variables; begin further down with node, or allow more",
                    "max",
                )

        await in_batches(list(places), limits.n_reads, browse)
    found = list(frontier.variables.values())
    await _units(connection, found, limits)
    return await _tags(connection, found, limits)


async def _browse(
    connection: UaConnection, nodes: Sequence[tuple[ua.NodeId, tuple[str, ...]]], frontier: _Frontier
) -> None:
    """Look into some nodes."""
    request = ua.BrowseRequest()
    request.Parameters.RequestedMaxReferencesPerNode = N_REFERENCES_MAX
    request.Parameters.NodesToBrowse = [
        ua.BrowseDescription(
            NodeId=node, BrowseDirection=ua.BrowseDirection.Forward, ReferenceTypeId=ua.NodeId(_HIERARCHICAL),
            IncludeSubtypes=True, NodeClassMask=_CLASSES, ResultMask=int(ua.BrowseResultMask.All),
        )
        for node, _ in nodes
    ]  # fmt: skip
    results = (await connection.ask(request, ua.BrowseResponse, "a browse")).Results
    for (node, path), result in zip(nodes, results, strict=True):
        if not path and result.StatusCode.value >= _BAD:
            raise ConfigError(f"the server answers {status_text(result.StatusCode.value)}", "node")
        _take(node, path, result.References, frontier)
        point = result.ContinuationPoint
        while point:
            more = ua.BrowseNextRequest()
            more.Parameters.ContinuationPoints = [point]
            (rest,) = (
                await connection.ask(more, ua.BrowseNextResponse, "the rest of a browse")
            ).Parameters.Results
            _take(node, path, rest.References, frontier)
            point = rest.ContinuationPoint


def _take(node: ua.NodeId, path: tuple[str, ...], references: Any, frontier: _Frontier) -> None:
    """What a node refers to: variables, what is below them, and the unit of a variable."""
    for one in references or ():
        target = ua.NodeId(one.NodeId.Identifier, one.NodeId.NamespaceIndex, one.NodeId.NodeIdType)
        name = one.BrowseName.Name or ""
        if one.ReferenceTypeId == ua.NodeId(_HAS_PROPERTY):
            if name == _UNIT and node in frontier.variables:
                frontier.variables[node].unit_node = target
            continue
        if target in frontier.seen:
            continue
        frontier.seen.add(target)
        if one.NodeClass == ua.NodeClass.Variable:
            frontier.variables[target] = _Found(target, (*path, name))
        frontier.next.append((target, (*path, name)))


async def _units(connection: UaConnection, found: list[_Found], limits: ServerLimits) -> None:
    having = [one for one in found if one.unit_node is not None]

    async def read(some: Sequence[int]) -> None:
        nodes = [having[i].unit_node for i in some]
        for i, value in zip(
            some, await connection.read_attributes(nodes, ua.AttributeIds.Value), strict=True
        ):
            having[i].unit = unit_text(value.Value.Value if value.Value is not None else None)

    limits.n_reads = await in_batches(range(len(having)), limits.n_reads, read)


def unit_text(information: Any) -> str:
    """The unit of an EUInformation; empty where it is none."""
    if not isinstance(information, ua.EUInformation):
        return ""
    return information.DisplayName.Text or ""


async def _tags(connection: UaConnection, found: list[_Found], limits: ServerLimits) -> Sequence[FoundTag]:
    out: list[FoundTag] = []

    async def read(some: Sequence[int]) -> None:
        body = await connection.request(read_request([found[i].node for i in some]), "a read")
        values = read_answer(body)
        out.extend(found_tag(connection, found[i], values, row) for row, i in enumerate(some))

    await in_batches(range(len(found)), limits.n_reads, read)
    return out


def found_tag(connection: UaConnection, one: _Found, values: Values, row: int) -> FoundTag:
    """What could become a sensor of a variable and its value."""
    kind, status = int(values.columns.kind[row]), int(values.columns.status[row])
    part = part_of(kind)
    dtype = "" if part == NO_PART else "string" if PARTS[part] == TEXT else PARTS[part]
    is_discrete = dtype == "string" or kind & ~ARRAY == BOOLEAN
    times = values.columns.source_ns[row], values.columns.server_ns[row]
    return FoundTag(
        "/".join(one.path[:-1]), one.path[-1], str(address_of(one.node, connection.namespaces)), dtype, one.unit,
        "discrete" if is_discrete else "analog", value_at(values, row),
        int(next((ts for ts in times if ts != NO_TIME), NO_TIME)), word(quality_of(status)),
        _problem(one.path[-1], kind, status),
    )  # fmt: skip


def _problem(name: str, kind: int, status: int) -> str:
    if status >= _BAD:
        return status_text(status)
    if not kind:
        return "it has no value"
    if part_of(kind) == NO_PART:
        return f"a {kind_text(kind)} can't be a sensor"
    return f"an array: write arrays.{name} = its number of elements" if kind & ARRAY else ""


def address_of(node: ua.NodeId, namespaces: Sequence[str]) -> NodeAddress:
    """A node id as profiles write it: with the URI of its namespace, for indexes may change."""
    kind = _FORMS[node.NodeIdType]
    identifier = node.Identifier
    if kind == "b":
        identifier = base64.b64encode(identifier).decode()
    index = int(node.NamespaceIndex)
    uri = namespaces[index] if 0 < index < len(namespaces) else ""
    return NodeAddress(kind, str(identifier), 0 if uri else index, uri)
