"""What the contract's own values say by themselves."""

import pytest

from headrace.adapters.base import AdapterState, Circuit, DeviceDiagnostics
from headrace.core.clock import NO_TIME, NS

NOW_NS = 1_767_225_600 * NS


@pytest.mark.parametrize(
    ("state", "retry_ns", "circuit"),
    [
        (AdapterState.CONNECTED, NO_TIME, Circuit.CLOSED),
        (AdapterState.DEGRADED, NO_TIME, Circuit.CLOSED),
        (AdapterState.STARTING, NO_TIME, Circuit.HALF_OPEN),
        (AdapterState.BACKOFF, NOW_NS + 1, Circuit.OPEN),
        (AdapterState.BACKOFF, NOW_NS, Circuit.HALF_OPEN),
        (AdapterState.FAILED, NOW_NS + 1, Circuit.OPEN),
        (AdapterState.PAUSED, NO_TIME, Circuit.OPEN),
    ],
)
def test_a_circuit_is_open_while_a_device_is_left_alone(state, retry_ns, circuit):
    device = DeviceDiagnostics("a/d", state, next_retry_ns=retry_ns)
    assert device.circuit(NOW_NS) is circuit
