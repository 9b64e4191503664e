"""The Modbus adapter passes the public kit over TLS and on a serial line, too."""

import pytest
from tests.contract.modbus_rigs import RtuRig, TlsRig

from headrace.testing import adapters as kit


@pytest.mark.parametrize("rig", [TlsRig, RtuRig])
@pytest.mark.parametrize("check", kit.CHECKS)
async def test_the_kit(check, rig, tmp_path):
    await check(rig(tmp_path))
