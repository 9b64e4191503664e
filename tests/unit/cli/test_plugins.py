"""``headrace plugins list`` and ``schema``."""

import json

import pytest

from headrace.adapters.registry import ADAPTERS, PAYLOADS
from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.codecs.registry import TIME_CODECS, VALUE_CODECS
from headrace.core.errors import PluginError
from headrace.core.registry import Registry
from headrace.pipeline.operators.registry import OPERATORS


def test_every_part_is_listed_with_what_it_is(capsys):
    assert run_command(["plugins", "list", "--json"]) == Exit.DONE
    found = json.loads(capsys.readouterr().out)
    names = [n for r in (ADAPTERS, PAYLOADS, OPERATORS, VALUE_CODECS, TIME_CODECS) for n in r.names()]
    assert [one["name"] for one in found] == names
    for one in found:
        assert one["title"], one
        assert one["docs"], one
        assert one["package"] == "headrace"
        assert "``" not in one["title"]
    modbus = next(one for one in found if one["name"] == "modbus")
    assert (modbus["stability"], modbus["extra"]) == ("beta", "modbus")
    assert modbus["docs"] == "headrace/adapters/modbus/README.md"


def test_one_kind_as_a_table(capsys):
    assert run_command(["plugins", "list", "operators"]) == Exit.DONE
    out = capsys.readouterr().out
    assert "sliding" in out
    assert "modbus" not in out
    assert run_command(["plugins", "list", "operator"]) == Exit.CONFIG
    assert "did you mean 'operators'?" in capsys.readouterr().err


def test_a_part_that_can_not_be_loaded_is_listed_with_the_reason(capsys, monkeypatch):
    broken = Registry("operators", {"gone": "headrace.no_such_module:Gone"})
    monkeypatch.setattr("headrace.runtime.catalogue.OPERATORS", broken)
    assert run_command(["plugins", "list", "operators"]) == Exit.DONE
    assert "can't be loaded" in capsys.readouterr().out


def test_the_schema_knows_the_keys_of_every_adapter(capsys):
    assert run_command(["schema"]) == Exit.DONE
    schema = json.loads(capsys.readouterr().out)
    keys = schema["$defs"]["AdapterSection"]["properties"]
    assert {"numbering", "topics", "files"} <= set(keys)
    assert schema["$defs"]["StoreSection"]["properties"]["rollups"]["enum"] == ["1m", "off"]


@pytest.mark.usefixtures("capsys")
def test_a_schema_without_an_adapter_that_can_not_be_loaded(monkeypatch, capsys):
    def load(name):
        raise PluginError("its library is missing")

    monkeypatch.setattr(ADAPTERS, "load", load)
    assert run_command(["schema"]) == Exit.DONE
    assert "the keys of modbus are left out: its library is missing" in capsys.readouterr().err
