"""The nodes that every OPC UA server has, as far as a simulated one needs them.

asyncua comes with all nodes of the standard as program text, in modules by their number: to load and run it takes 2 s
of CPU. The first of them have what clients look at: folders, base types, the server's state and limits.
"""

from __future__ import annotations

from importlib import import_module
from itertools import count
from typing import Any

from asyncua import ua

_NEEDED = (
    ua.ObjectIds.ObjectsFolder, ua.ObjectIds.BaseDataVariableType, ua.ObjectIds.FolderType, ua.ObjectIds.Server_NamespaceArray,
    ua.ObjectIds.Server_ServerStatus_CurrentTime, ua.ObjectIds.Server_ServiceLevel,
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
)  # fmt: skip


class _Gathering:
    """What the modules hand their nodes to: adds what can be added, and keeps what comes before its parent."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self._kept: list[Any] = []

    def add_nodes(self, nodes: list[Any]) -> None:
        self._kept += self._service.try_add_nodes(nodes, check=False)

    def add_kept(self) -> None:
        """Add what has its parent now; the rest belongs to nodes that are not wanted."""
        list(self._service.try_add_nodes(self._kept, check=False))


def add_standard_nodes(service: Any, space: Any) -> None:
    """Fill an address space (`asyncua.server.address_space`) with the first modules that have all that is needed."""
    gathering = _Gathering(service)
    numbers = count(1)
    while not all(ua.NodeId(one) in space for one in _NEEDED):
        number = next(numbers)
        module = import_module(
            f"asyncua.server.standard_address_space.standard_address_space_services_{number}"
        )
        getattr(module, f"create_standard_address_space_Services_{number}")(gathering)
    gathering.add_kept()
