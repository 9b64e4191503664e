"""Bodies that clients push: decompressed here, handed to an adapter of the protocol ``http``, answered by the engine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from urllib.parse import quote

from fastapi import Request
from starlette.exceptions import HTTPException

from headrace.api.backend import Backend
from headrace.api.routes.handing_on import forwarded
from headrace.core.errors import NotFound
from headrace.core.registry import nearest
from headrace.runtime.control_routes import MAX_BODY_BYTES, SAMPLES_HEADER

_PROTOCOL = "http"
_SNAPPY_RATIO_MAX = 64
"""A snappy stream can't grow more than this: an element of three bytes stands for 64."""


def _gunzip(body: bytes) -> bytes:
    out, rest = bytearray(), body
    while rest:  # several members may stand one behind the other
        packed = zlib.decompressobj(31)
        try:
            out += packed.decompress(rest, MAX_BODY_BYTES + 1 - len(out))
        except zlib.error as e:
            raise HTTPException(400, f"the body is no gzip: {e}") from e
        if len(out) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES:,} bytes when unpacked")
        if not packed.eof:
            raise HTTPException(400, "the gzip body is cut short")
        rest = packed.unused_data
    return bytes(out)


def _unsnap(body: bytes) -> bytes:
    """Snappy's block format: its first bytes say how large it is unpacked, which is looked at before it is believed."""
    import pyarrow as pa

    size = 0
    for number, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            break
    else:
        raise HTTPException(400, "the body is no snappy block: it does not say its size")
    if size > MAX_BODY_BYTES:
        raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES:,} bytes when unpacked")
    if size > _SNAPPY_RATIO_MAX * len(body):
        raise HTTPException(
            400, f"the body is no snappy block: {len(body):,} bytes can't be {size:,} unpacked"
        )
    try:
        out: bytes = pa.decompress(body, decompressed_size=size, codec="snappy", asbytes=True)
    except (OSError, ValueError) as e:
        raise HTTPException(400, f"the body is no snappy block: {e}") from e
    return out


_UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": _gunzip, "x-gzip": _gunzip, "snappy": _unsnap}


async def _unpacked(backend: Backend, request: Request) -> bytes:
    """The body, decompressed; of a bounded size, however small it came.

    Raises
    ------
    HTTPException : it is too large, or not what its encoding says.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    body = await request.body()
    if encoding in ("", "identity"):
        return body
    unpack = _UNPACK.get(encoding)
    if unpack is None:
        raise HTTPException(
            415, f"content encoding {encoding[:40]!r} can't be read; snappy, gzip and identity can"
        )
    return await backend.blocking(unpack, body)


async def push(backend: Backend, request: Request, wanted: str, parameters: Mapping[str, str]) -> int:
    """Hand a body to an adapter; how many samples of it are durable. Raises as the engine refuses."""
    name = await _adapter(backend, wanted)
    headers = forwarded(request)
    if "content-type" not in request.headers:
        headers["Content-Type"] = "text/plain"
    if "idempotency-key" in request.headers:
        headers["Idempotency-Key"] = request.headers["idempotency-key"]
    body = await _unpacked(backend, request)
    answer = await backend.control.send(
        "POST", f"/api/v1/receive/{quote(name, safe='')}", body=body, headers=headers, parameters=parameters
    )
    return int(answer.headers.get(SAMPLES_HEADER, "0"))


async def _adapter(backend: Backend, wanted: str) -> str:
    """The adapter of that name, else the only one that is pushed to. Raises `NotFound`."""
    known = [one["name"] for one in await backend.adapters() if one["protocol"] == _PROTOCOL]
    if wanted in known:
        return wanted
    if len(known) == 1:
        return str(known[0])
    if not known:
        raise NotFound('no adapter takes what is pushed; write [adapters.NAME] with protocol = "http"')
    raise NotFound(f"no adapter {wanted[:100]!r} takes what is pushed{nearest(wanted[:100], known)}")
