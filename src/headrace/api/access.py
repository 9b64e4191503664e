"""Who may ask what: tokens, roles, and what a request needs."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from enum import IntEnum

OPEN_PATHS = ("/livez", "/readyz")
"""What an orchestrator asks, which has no token."""

_PUSHED = ("/prometheus/api/v1/write", "/v1/metrics")


class CallerRole(IntEnum):
    """What a caller may do; each role may also do what the ones before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


def needed_role(method: str, path: str) -> CallerRole | None:
    """The least role for a request; None where everybody may ask."""
    if path in OPEN_PATHS and method in ("GET", "HEAD"):
        return None
    if path.startswith("/api/v1/config") and method not in ("GET", "HEAD"):
        return CallerRole.ADMIN
    reads = method in ("GET", "HEAD", "OPTIONS")
    if path in _PUSHED and not reads:
        return CallerRole.OPERATOR
    if reads or path.startswith("/prometheus/") or not path.startswith(("/api/", "/write")):
        return CallerRole.VIEWER
    return CallerRole.OPERATOR


class Tokens:
    """The tokens that are known.

    Parameters
    ----------
    tokens : role → token, as the plant file has them; empty where whoever reaches the port may do everything.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = [(CallerRole[role.upper()], token.encode()) for role, token in tokens.items()]

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def role(self, authorization: bytes) -> CallerRole | None:
        """The role of who shows this ``Authorization`` header; None for nobody.

        ``Bearer TOKEN``, ``Token TOKEN`` (as InfluxDB's clients say it), or ``Basic`` with the token as password (as
        browsers and Grafana say it).
        """
        if not self._tokens:
            return CallerRole.ADMIN
        shown = _shown(authorization)
        best: CallerRole | None = None
        for role, token in self._tokens:  # all of them: the time it takes tells nothing
            if hmac.compare_digest(shown, token):
                best = role if best is None else max(best, role)
        return best


def _shown(authorization: bytes) -> bytes:
    kind, _, rest = authorization.strip().partition(b" ")
    if kind.lower() in (b"bearer", b"token"):
        return rest.strip()
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(rest, validate=True).partition(b":")[2]
        except (ValueError, binascii.Error):
            return b""
    return b""
