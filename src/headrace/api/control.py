"""Questions of the api process to its engine's control port; asynchronous, over connections that are kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from headrace.core.errors import Unreachable

_TIMEOUT_S = 30.0
_CONNECT_S = 2.0
_CONNECTIONS = 64


class EngineRefused(Exception):
    """The engine said no: the problem in its own words, to be handed on as it is."""

    def __init__(self, status: int, document: dict[str, Any], retry_after: str | None) -> None:
        super().__init__(str(document.get("detail", status)))
        self.status, self.document, self.retry_after = status, document, retry_after


class ControlClient:
    """The engine, asked.

    Parameters
    ----------
    address, key : its control port.
    """

    def __init__(self, address: str, key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            # A proxy set in the environment must not be asked for what runs on this machine.
            trust_env=False,
            timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=_CONNECTIONS),
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def get(self, path: str, parameters: Mapping[str, str] | None = None) -> httpx.Response:
        """GET. Raises as `send`."""
        return await self.send("GET", path, parameters=parameters)

    async def json(self, path: str) -> Any:
        """What the engine says, JSON. Raises as `send`."""
        return (await self.get(path)).json()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Ask, with whatever body; `headers` say among others who asks (``Headrace-Actor``).

        Raises
        ------
        EngineRefused : the engine says no. Unreachable : it does not answer.
        """
        try:
            answer = await self._client.request(
                method, path, content=body, headers=dict(headers or {}), params=dict(parameters or {})
            )
        except httpx.HTTPError as e:
            raise _silent(e) from e
        if answer.is_error:
            raise _refused(answer)
        return answer

    @asynccontextmanager
    async def lines(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        """Follow an answer line by line, for ever. Raises as `send`."""
        request = self._client.build_request("GET", path, timeout=httpx.Timeout(None, connect=_CONNECT_S))
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.HTTPError as e:
            raise _silent(e) from e
        try:
            if answer.is_error:
                await answer.aread()
                raise _refused(answer)
            yield answer.aiter_lines()
        except httpx.HTTPError as e:
            raise _silent(e) from e
        finally:
            await answer.aclose()


def _silent(error: httpx.HTTPError) -> Unreachable:
    why = str(error) or type(error).__name__
    return Unreachable(
        f"the engine does not answer ({why}); it is starting or has ended, ask again in a moment"
    )


def _refused(answer: httpx.Response) -> EngineRefused:
    try:
        document = json.loads(answer.content)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    return EngineRefused(answer.status_code, document, answer.headers.get("Retry-After"))
