"""The tables of adapters and payload decoders."""

import subprocess
import sys

import pytest

from headrace.adapters.abilities import Warms
from headrace.adapters.registry import ADAPTERS, PAYLOADS
from headrace.core.errors import ConfigError


def test_every_name_loads_what_it_says():
    for name in ADAPTERS.names():
        kind = ADAPTERS.load(name)
        assert kind.Config.model_fields["protocol"].default == name
    assert {name: PAYLOADS.load(name).has_keys for name in PAYLOADS.names()} == {
        "arrow": True,
        "csv": True,
        "fields": True,
        "line": True,
        "number": False,
        "registers": True,
        "sparkplug": True,
    }


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'modbus'"):
        ADAPTERS.load("modbas")


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, headrace.adapters.base, headrace.adapters.registry; "
        "print({'pymodbus', 'gmqtt', 'confluent_kafka', 'msgspec', 'pyarrow', 'numba', 'amqtt'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )


def test_polling_needs_no_protocol_library():
    code = "import sys, headrace.adapters.modbus.adapter; print({'pymodbus', 'gmqtt', 'numba'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_what_has_kernels_can_be_made_ready(name):
    kind = ADAPTERS.load(name)
    if issubclass(kind, Warms):
        kind.warm()
