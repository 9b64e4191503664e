"""A client for tests and trials: machines that push line protocol and try again until they are told it is durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import NotConnected

NO_CONTENT, BAD_REQUEST, OVERLOADED, UNAVAILABLE = 204, 400, 429, 503
_FIRST_WAIT_S, _MOST_WAIT_S = 0.02, 1.0


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """What a server says to a push: HTTP's status, and after how many seconds to try again."""

    status: int
    text: str = ""
    wait_s: float = 0.0


Post = Callable[[bytes, str], Awaitable[PushAnswer]]
"""Sends a body with an idempotency key. Raises NotConnected where there is no answer."""


class PushingClient:
    """Pushes bodies, one after the other, each with a key of its own, until each is answered for good.

    Parameters
    ----------
    post : how one body is sent. name : makes the keys this client's own.

    Attributes
    ----------
    n_acknowledged : bodies that are durable; n_refused : those of them of which something was refused.
    n_tries : posts.
    """

    def __init__(self, post: Post, name: str = "client", clock: Clock | None = None) -> None:
        self._post = post
        self._name = name
        self._clock = clock or SystemClock()
        self._n_bodies = 0
        self.n_acknowledged = 0
        self.n_refused = 0
        self.n_tries = 0

    async def push(self, body: bytes) -> PushAnswer:
        """Send one body until it is durable, or refused for good."""
        self._n_bodies += 1
        key, wait_s = f"{self._name}-{self._n_bodies}", _FIRST_WAIT_S
        while True:
            self.n_tries += 1
            try:
                answer = await self._post(body, key)
            except NotConnected as e:
                answer = PushAnswer(UNAVAILABLE, str(e))
            if answer.status in (NO_CONTENT, BAD_REQUEST):
                self.n_acknowledged += 1
                self.n_refused += answer.status == BAD_REQUEST
                return answer
            await self._clock.sleep(min(answer.wait_s or wait_s, _MOST_WAIT_S))
            wait_s = min(2 * wait_s, _MOST_WAIT_S)


def http_post(url: str, token: str = "", timeout_s: float = 5.0) -> Post:
    """A `Post` over HTTP to ``http://host:port/api/v2/write?bucket=name`` or any address that takes line protocol.

    Parameters
    ----------
    timeout_s : how long an answer may take before the body is sent again.
    """
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def post(body: bytes, key: str) -> PushAnswer:
        try:
            async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=timeout_s) as client:
                answer = await client.post(url, content=body, headers={"Idempotency-Key": key})
        except httpx.TransportError as e:
            raise NotConnected(f"no answer from {url}: {e}") from e
        wait_s = answer.headers.get("retry-after", "0")
        return PushAnswer(answer.status_code, answer.text, float(wait_s) if wait_s.isdecimal() else 0.0)

    return post


class LineMachines:
    """Machines of one kind whose state goes its way from a seed.

    Parameters
    ----------
    n : machines; tags: ``site`` and ``host``.
    """

    def __init__(self, n: int, seed: int, site: str = "leon") -> None:
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._keys = [f"machine,site={site},host=m{i}" for i in range(n)]
        self._temperature = self._random.uniform(20.0, 80.0, n)
        self._pieces = np.zeros(n, np.int64)

    def lines(self, ts_ns: int) -> bytes:
        """One line of every machine: temperature (float), pieces (integer), running (truth), mode (text)."""
        n = len(self._keys)
        self._temperature += self._random.normal(0.0, 0.2, n)
        running = self._random.random(n) < 0.9
        self._pieces += running
        return "".join(
            f'{key} temperature={temperature:.3f},pieces={pieces}i,running={str(on).lower()},mode="{mode}" {ts_ns}\n'
            for key, temperature, pieces, on, mode in zip(
                self._keys, self._temperature.tolist(), self._pieces.tolist(), running.tolist(),
                np.where(running, "auto", "idle").tolist(), strict=True,
            )
        ).encode()  # fmt: skip
