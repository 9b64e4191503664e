"""The Modbus adapter passes the public kit over TLS, on a serial line and through a device server, too."""

import pytest
from tests.contract.modbus_rigs import RtuRig, RtuTcpRig, TlsRig

from headrace.testing import adapter_faults as faults
from headrace.testing import adapter_inputs as inputs
from headrace.testing import adapters as kit
from headrace.testing.adapter_contract import contract

WIRE = [check for check, needs in faults.NEEDS.items() if needs == ("wire",)]
CHECKS = {
    TlsRig: (*kit.CHECKS, *WIRE),
    RtuRig: (*kit.CHECKS, inputs.check_fuzzed_input_is_accounted, faults.check_half_open_is_noticed),
    # RTU numbers no requests: an answer that is late by a whole time-out can't be told from the next one.
    RtuTcpRig: (
        *(one for one in WIRE if one is not faults.check_late_reply),
        faults.check_clock_jumps,
        faults.check_capture_decodes_to_the_same,
    ),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(*one.values, id=f"{rig.link}-{one.id}")
        for rig, checks in CHECKS.items()
        for one in contract(rig, checks=checks)
    ],
)
async def test_the_kit(check, tmp_path):
    await check(tmp_path)
