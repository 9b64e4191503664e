"""A client for tests of the public port: what was answered, whatever the status."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass


@dataclass
class Answered:
    """One answer."""

    status: int
    headers: object
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode()


def ask(address, path, *, method=None, body=None, headers=None, timeout_s=30):
    """Ask, and take refusals as answers; a connection waits while the child is away."""
    request = urllib.request.Request(address + path, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return Answered(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as e:
        with e:
            return Answered(e.code, e.headers, e.read())
