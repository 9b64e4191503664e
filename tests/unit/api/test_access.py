"""Who may ask what."""

import base64

import pytest

from headrace.api.access import CallerRole, Tokens, needed_role

TOKENS = Tokens({"viewer": "v" * 16, "operator": "o" * 16, "admin": "a" * 16})


def basic(user, password):
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


@pytest.mark.parametrize(
    ("shown", "role"),
    [
        (b"Bearer " + b"v" * 16, CallerRole.VIEWER), (b"bearer  " + b"o" * 16, CallerRole.OPERATOR),
        (b"Token " + b"o" * 16, CallerRole.OPERATOR), (basic("me", "a" * 16), CallerRole.ADMIN),
        (basic("", "v" * 16), CallerRole.VIEWER), (b"", None), (b"Bearer", None), (b"Bearer " + b"v" * 15, None),
        (b"Basic !!!", None), (b"Digest " + b"v" * 16, None), (b"v" * 16, None), (b"\xff\xfe", None),
    ],
)  # fmt: skip
def test_tokens_are_shown_in_several_ways(shown, role):
    assert TOKENS.role(shown) is role


def test_without_tokens_everybody_may_do_everything():
    assert not Tokens({})
    assert Tokens({}).role(b"") is CallerRole.ADMIN


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/livez", None), ("GET", "/readyz", None), ("POST", "/livez", CallerRole.VIEWER),
        ("GET", "/metrics", CallerRole.VIEWER), ("GET", "/", CallerRole.VIEWER), ("GET", "/api/v1/config", CallerRole.VIEWER),
        ("POST", "/prometheus/api/v1/query", CallerRole.VIEWER), ("POST", "/api/v1/adapters/x/pause", CallerRole.OPERATOR),
        ("POST", "/api/v2/write", CallerRole.OPERATOR), ("POST", "/write", CallerRole.OPERATOR),
        ("PUT", "/api/v1/config", CallerRole.ADMIN), ("DELETE", "/api/v1/anything", CallerRole.OPERATOR),
    ],
)  # fmt: skip
def test_what_a_request_needs(method, path, role):
    assert needed_role(method, path) is role
