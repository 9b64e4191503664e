"""What tests of the HTTP adapter share."""

import pytest
from tests.unit.adapters.http.test_adapter import make

from headrace.testing.adapters import RecordingSink


@pytest.fixture
async def sink():
    return RecordingSink()


@pytest.fixture
async def running(sink):
    adapter = make()
    await adapter.start(sink)
    yield adapter
    await adapter.stop()
