"""What is asked of one connection to a broker."""

import pytest

from headrace.adapters.broker import client
from headrace.core.errors import NotConnected


async def test_what_nobody_acknowledges_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(client, "_DELIVERED_S", 0.01)
    one = client.SingleConnection("device")
    await one.delivered()
    one._persistent_storage.push_message(1, b"")
    with pytest.raises(NotConnected, match="1 messages not acknowledged"):
        await one.delivered()
