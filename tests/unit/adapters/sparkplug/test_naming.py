"""From ids and names of metrics to paths; configuration of the adapter."""

import pytest

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.sparkplug.adapter import SparkplugAdapter
from headrace.adapters.sparkplug.config import SparkplugConfig
from headrace.adapters.sparkplug.naming import compile_naming, own_path
from headrace.adapters.sparkplug.topics import command_topic, filters, read_topic, state_topic
from headrace.core.errors import ConfigError
from headrace.core.problems import validate_section

FOUR = ("site", "area", "device", "signal")
FIVE = ("site", "area", "line", "device", "signal")


def path_of(metric, path=None, ids=None, joiner=None, levels=(), **who):
    naming = compile_naming(path, ids or {}, joiner, levels, "adapters.p")
    group, name = naming.place(naming.names({"group": "g", "node": "n", "device": "d", **who}), metric)
    return group, name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"metric": "Temp"}, ("g/n/d", "Temp")),
        ({"metric": "Zone 1/Temp"}, ("g/n/d", "Zone 1/Temp")),
        ({"metric": "Zone 1/Temp", "levels": FOUR}, ("g/n/d", "Zone 1.Temp")),
        ({"metric": "a/b/c", "joiner": " - ", "levels": FOUR}, ("g/n/d", "a - b - c")),
        ({"metric": "a/b/c", "path": "leon/{folder1}/{metric}"}, ("leon/a", "b/c")),
        ({"metric": "a/b/c", "path": "{folder2}/{group}/{metric}"}, ("b/g", "c")),
        ({"metric": "Pump #1, a+b"}, ("g/n/d", "Pump %231%2C a%2Bb")),
        ({"metric": "Load %"}, ("g/n/d", "Load %")),
        ({"metric": "%23"}, ("g/n/d", "%2523")),
        ({"metric": "x", "node": "{n}*"}, ("g/%7Bn%7D%2A/d", "x")),
        (
            {
                "metric": "x", "group": "leon:paint", "ids": {"group": "{site}:{area}"},
                "path": "{site}/{area}/{node}/{device}/{metric}", "levels": FIVE,
            },
            ("leon/paint/n/d", "x"),
        ),
        (
            {"metric": "x", "node": "l1-c2-x", "ids": {"node": "{line}-{cell}"}, "path": "{line}/{cell}/{metric}"},
            ("l1/c2-x", "x"),
        ),
        ({"metric": "x", "device": "o.7", "ids": {"device": "o.{number}"}, "path": "oven{number}/{metric}"}, ("oven7", "x")),
    ],
)  # fmt: skip
def test_paths(given, expected):
    assert path_of(**given) == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"metric": "/x"}, "a part between its '/' is empty or missing"),
        ({"metric": "a//x"}, "is empty or missing"),
        ({"metric": "x", "path": "{folder1}/{metric}"}, "expected 2 parts at least"),
        (
            {"metric": "x", "group": "leon", "ids": {"group": "{site}:{area}"}},
            "group 'leon' is not as ids.group says",
        ),
    ],
)
def test_metrics_that_have_no_path(given, why):
    with pytest.raises(PayloadError) as e:
        path_of(**given)
    assert (str(e.value.code), why in e.value.detail) == ("bad-path", True), e.value.detail


@pytest.mark.parametrize(
    ("config", "where", "why"),
    [
        ({"path": "{group}/{node}"}, "path", "must end in a level {metric}"),
        ({"path": "{metric}"}, "path", "must end in a level {metric}"),
        ({"path": "{metric}/{metric}"}, "path", "must end in a level {metric}"),
        ({"path": "{group}/{metric}"}, "path", "has 2 levels, expected 4: site/area/device/signal"),
        (
            {"path": "{a}/{group}/{node}/{metric}"},
            "path",
            "names {a}; there are {group}, {node}, {device}, {folder1}",
        ),
        ({"path": "a//b/{metric}"}, "path", "can't name a sensor"),
        ({"joiner": "/"}, "path", "gives metrics more levels than the plant has"),
        ({"ids": {"grup": "{a}"}}, "ids", "there is no id 'grup'; did you mean 'group'"),
        ({"ids": {"group": "a"}}, "ids", "names no parts of an id"),
        ({"ids": {"group": "{a}{b}"}}, "ids", "names no parts of an id"),
        ({"ids": {"group": "{a}:{a}"}}, "ids", "names no parts of an id"),
        ({"ids": {"group": "{node}:{a}"}}, "ids", "names no parts of an id"),
        ({"ids": {"group": "{A}"}}, "ids", "names no parts of an id"),
    ],
)
def test_configurations_that_cannot_be(config, where, why):
    settings = validate_section(SparkplugConfig, {"url": "mqtt://h", **config}, "adapters.p")
    with pytest.raises(ConfigError) as e:
        SparkplugAdapter.from_config("p", settings, {}, PlantFacts(FOUR))
    assert (e.value.where, why in e.value.message) == (f"adapters.p.{where}", True), e.value.message


@pytest.mark.parametrize(
    ("levels", "said"),
    [(FIVE, '"site/{group}/{node}/{device}/{metric}"'), (FIVE[2:], '"{node}/{device}/{metric}"')],
)
def test_a_plant_of_other_levels_is_told_what_to_write(levels, said):
    with pytest.raises(ConfigError, match="levels, .*; say where they come from") as e:
        compile_naming(None, {}, None, levels, "adapters.p")
    assert said in e.value.message


@pytest.mark.parametrize(
    "config",
    [
        {"groups": []},
        {"groups": ["a/b"]},
        {"host_id": "a/b"},
        {"joiner": "#"},
        {"node_device": "a+"},
        {"max_keys": 0},
    ],
    ids=str,
)
def test_settings_that_are_refused(config):
    with pytest.raises(ConfigError):
        validate_section(SparkplugConfig, {"url": "mqtt://h", **config}, "adapters.p")


def test_topics():
    assert read_topic("spBv1.0/g/NDATA/n") == ("g", "NDATA", "n", "")
    assert read_topic("spBv1.0/g/DDEATH/n/d") == ("g", "DDEATH", "n", "d")
    for topic in (
        "spBv1.0/g/NDATA/n/d", "spBv1.0/g/DDATA/n", "spBv1.0/g/NCMD/n", "spBv1.0/STATE/h", "spAv1.0/g/NDATA/n",
        "spBv1.0//NDATA/n", "x", "", "spBv1.0/g/DCMD/n/d",
    ):  # fmt: skip
        assert read_topic(topic) is None, topic
    assert filters(["g"]) == [
        "spBv1.0/g/NBIRTH/+", "spBv1.0/g/NDATA/+", "spBv1.0/g/NDEATH/+", "spBv1.0/g/DBIRTH/+/+", "spBv1.0/g/DDATA/+/+",
        "spBv1.0/g/DDEATH/+/+",
    ]  # fmt: skip
    assert (state_topic("h"), command_topic(("g", "n"))) == ("spBv1.0/STATE/h", "spBv1.0/g/NCMD/n")


async def test_before_start_and_after_stop():
    settings = validate_section(SparkplugConfig, {"url": "mqtt://h"}, "adapters.p")
    adapter = SparkplugAdapter.from_config("p", settings, {}, PlantFacts())
    assert adapter.diagnostics().state is AdapterState.STARTING
    await adapter.stop()
    assert adapter.diagnostics().state is AdapterState.STOPPED


def test_addresses_of_a_table_of_tags_are_named_like_metrics():
    naming = compile_naming(
        "{site}/{area}/{node}/{device}/{metric}", {"group": "{site}:{area}"}, None, tuple("abcde"), "x"
    )
    assert own_path(naming, "node", "leon:paint/line1/oven#Inlet/T") == "leon/paint/line1/oven/Inlet.T"
    assert own_path(naming, "node", "leon:paint/line1#T") == "leon/paint/line1/node/T"
    for address in ("leon:paint/line1/oven", "line1#T", "a/b/c/d#T", "a//c#T", "leon:paint/line1/oven#"):
        with pytest.raises(ConfigError, match="write group/node/device#metric"):
            own_path(naming, "node", address)
    with pytest.raises(ConfigError, match=r"is not as ids\.group says"):
        own_path(naming, "node", "leon/line1/oven#T")
