"""Which sensors there are: as a list, as a tree, one by one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from headrace.api.routes.asked import PROBLEMS, Asked

router = APIRouter(prefix="/api/v1", tags=["sensors"], responses=PROBLEMS)
_SENSOR = {
    "id": "8f2b1c5e9a7d4036",
    "path": "leon/paint/line1/oven1/temperature",
    "unit": "degC",
    "kind": "analog",
    "type": "u16",
    "labels": [],
    "limits": [0.0, 400.0],
    "derived": False,
}
_LIST = {"sensors": [_SENSOR], "cursor": None}
_TREE = {
    "path": "leon/paint",
    "children": [{"name": "line1", "path": "leon/paint/line1", "sensors": 120, "is_sensor": False}],
    "cursor": None,
}


def _example(document: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": document}}}}


@router.get("/sensors", responses=_example(_LIST))
async def sensors(
    backend: Asked,
    pattern: Annotated[
        str,
        Query(
            description="whole paths: `*` one level, `**` any number, `{a,b}` either",
            min_length=1,
            max_length=4_096,
        ),
    ] = "**",
    limit: Annotated[int, Query(ge=1, le=10_000, description="sensors at most")] = 1_000,
    cursor: Annotated[str, Query(description="of the answer before: go on behind it", max_length=4_096)] = "",
) -> dict[str, Any]:
    """Sensors whose path matches, device by device.

    The answer's `cursor` asks for the next ones; it is null behind the last.
    """
    found = await backend.sensors(pattern, cursor, limit)
    return {
        "sensors": [one.to_dict() for one in found],
        "cursor": found[-1].path if len(found) == limit else None,
    }


@router.get("/sensors/{id}", responses=_example(_SENSOR))
async def sensor(
    backend: Asked,
    id_: Annotated[str, Path(alias="id", pattern="^[0-9a-f]{16}$", description="16 hexadecimal digits")],
) -> dict[str, Any]:
    """One sensor by its id, which no rename changes."""
    return (await backend.sensor(int(id_, 16))).to_dict()


@router.get("/tree", responses=_example(_TREE))
async def tree(
    backend: Asked,
    path: Annotated[str, Query(description="of any level; empty for the top", max_length=4_096)] = "",
    limit: Annotated[int, Query(ge=1, le=10_000, description="children at most")] = 1_000,
    cursor: Annotated[str, Query(description="of the answer before: go on behind it", max_length=4_096)] = "",
) -> dict[str, Any]:
    """What is one level below a path, each child with the number of sensors below it."""
    found = await backend.children(path, cursor, limit)
    children = [
        {"name": one.name, "path": one.path, "sensors": one.n_sensors, "is_sensor": one.is_sensor}
        for one in found
    ]
    return {
        "path": path.strip("/"),
        "children": children,
        "cursor": found[-1].name if len(found) == limit else None,
    }
