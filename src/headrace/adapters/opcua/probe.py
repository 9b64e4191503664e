"""One look at a server: how it is, what it offers, and one variable with its type, times and status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncua import ua

from headrace.adapters.opcua.addresses import NodeAddress
from headrace.adapters.opcua.browsing import unit_text
from headrace.adapters.opcua.client import UaConnection, read_request
from headrace.adapters.opcua.kinds import kind_text, overflows, quality_of
from headrace.adapters.opcua.messages import read_answer
from headrace.adapters.opcua.statuses import status_text
from headrace.adapters.opcua.texts import value_at
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.quality import word
from headrace.core.registry import nearest

PROBE_WANTED = ("device", "url", "address", "signal")
_HAS_PROPERTY = 46
_STATE = 2_259  # Server_ServerStatus_State
_PRODUCT, _VERSION = 2_261, 2_264  # of the build info
_PROPERTIES = {"EngineeringUnits": "unit", "EURange": "range"}


def check_probe(wanted: Mapping[str, str]) -> None:
    """Raise `ConfigError` where a probe is asked for what OPC UA does not know."""
    for key in wanted:
        if key not in PROBE_WANTED:
            raise ConfigError(f"an opcua probe knows no {key!r}{nearest(key, list(PROBE_WANTED))}", key)


async def probe_server(connection: UaConnection, address: NodeAddress | None) -> dict[str, Any]:
    """The server, and a variable where one is asked for; JSON-ready.

    Raises
    ------
    ConfigError : the server has no such namespace. NotConnected, TimeoutError, ServiceFailed : of the connection.
    """
    nodes = [ua.NodeId(one) for one in (_STATE, _PRODUCT, _VERSION)]
    found = await connection.read_attributes(nodes, ua.AttributeIds.Value)
    state, product, version = (None if one.Value is None else one.Value.Value for one in found)
    out: dict[str, Any] = {
        "state": _state_text(state),
        "product": f"{product or ''} {version or ''}".strip(),
        "namespaces": connection.namespaces,
    }
    if address is not None:
        out["variable"] = await _variable(connection, address)
    return out


def _state_text(state: Any) -> str:
    try:
        return str(ua.ServerState(state).name)
    except ValueError:
        return "unknown"


async def _variable(connection: UaConnection, address: NodeAddress) -> dict[str, Any]:
    try:
        node = connection.node_id(address)
    except LookupError as e:
        raise ConfigError(str(e.args[0]), "address") from e
    values = read_answer(await connection.request(read_request([node]), "a read"))
    columns = values.columns
    status = int(columns.status[0])
    names = await connection.read_attributes([node], ua.AttributeIds.DisplayName)
    name = None if names[0].Value is None else names[0].Value.Value
    return {
        "address": str(address),
        "node": node.to_string(),
        "name": "" if name is None else name.Text or "",
        "type": kind_text(int(columns.kind[0])),
        "value": value_at(values, 0),
        "status": status_text(status),
        "has_overflown": bool(overflows(columns.status[:1])[0]),
        "quality": word(quality_of(status)),
        "source_ns": _time(columns.source_ns[0]),
        "server_ns": _time(columns.server_ns[0]),
        **await _properties(connection, node),
    }


_COLUMNS = {
    "address": "address", "name": "name", "type": "type", "value": "value", "unit": "unit", "status": "status",
    "quality": "quality", "source_ns": "source_time_ns", "server_ns": "server_time_ns",
}  # fmt: skip


def shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """What of a probe people are shown; see `headrace.adapters.abilities.Probes`."""
    facts = [
        ("device", f"{found['device']} at {found['peer']}"),
        ("connection", f"{found['connection']}, {found['seconds']:.3f} s"),
        ("server", f"{found['product']}, {found['state']}".lstrip(", ")),
        ("namespaces", ", ".join(found["namespaces"])),
    ]
    variable = found.get("variable")
    if variable is None:
        return {"facts": facts}
    if variable["range"] is not None:
        low, high = variable["range"]
        facts.append(("range", f"{low:g} to {high:g} {variable['unit']}".rstrip()))
    if variable["has_overflown"]:
        facts.append(("overflow", "the server's queue has lost values before this one"))
    row = [variable[key] for key in _COLUMNS]
    return {"facts": facts, "table": {"columns": list(_COLUMNS.values()), "rows": [row]}}


def _time(ts_ns: Any) -> int | None:
    return None if ts_ns == NO_TIME else int(ts_ns)


async def _properties(connection: UaConnection, node: ua.NodeId) -> dict[str, Any]:
    """Unit and range, where the variable has them."""
    request = ua.TranslateBrowsePathsToNodeIdsRequest()
    for name in _PROPERTIES:
        element = ua.RelativePathElement(
            ReferenceTypeId=ua.NodeId(_HAS_PROPERTY),
            IsInverse=False,
            IncludeSubtypes=True,
            TargetName=ua.QualifiedName(name, 0),
        )
        request.Parameters.BrowsePaths.append(ua.BrowsePath(node, ua.RelativePath([element])))
    answer = ua.TranslateBrowsePathsToNodeIdsResponse
    results = (await connection.ask(request, answer, "a look for properties")).Results
    out: dict[str, Any] = {"unit": "", "range": None}
    for key, result in zip(_PROPERTIES.values(), results, strict=True):
        if not result.Targets:
            continue
        target = result.Targets[0].TargetId
        where = ua.NodeId(target.Identifier, target.NamespaceIndex, target.NodeIdType)
        (found,) = await connection.read_attributes([where], ua.AttributeIds.Value)
        value = None if found.Value is None else found.Value.Value
        if key == "unit":
            out[key] = unit_text(value)
        elif isinstance(value, ua.Range):
            out[key] = [value.Low, value.High]
    return out
