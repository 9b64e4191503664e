"""Configuration of the MQTT adapter."""

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.broker.config import broker_address
from headrace.adapters.mqtt.adapter import MqttAdapter
from headrace.adapters.mqtt.config import MqttConfig
from headrace.core.errors import ConfigError
from headrace.core.problems import validate_section

TOPICS = {"plant/{device}": {"path": "leon/{device}/{key}"}}


def config_of(**config):
    return validate_section(MqttConfig, {"url": "mqtt://h", "topics": TOPICS, **config}, "adapters.b")


@pytest.mark.parametrize(
    ("url", "shown", "is_tls"),
    [
        ("mqtt://broker.local", "broker.local:1883", False),
        ("mqtts://broker.local", "broker.local:8883", True),
        ("mqtt://10.0.0.1:18830/", "10.0.0.1:18830", False),
    ],
)
def test_urls(tmp_path, url, shown, is_tls):
    address = broker_address(config_of(url=url), tmp_path, "adapters.b")
    assert (str(address), address.is_tls) == (shown, is_tls)


@pytest.mark.parametrize(
    ("config", "where", "why"),
    [
        ({"url": "http://h"}, "adapters.b.url", "is not mqtt://host"),
        ({"url": "mqtt://"}, "adapters.b.url", "is not mqtt://host"),
        ({"url": "mqtt://h/topic"}, "adapters.b.url", "is not mqtt://host"),
        ({"url": "mqtt://h?x=1"}, "adapters.b.url", "is not mqtt://host"),
        ({"url": "mqtt://user@h"}, "adapters.b.url", "is not mqtt://host"),
        ({"url": "mqtt://h:1x"}, "adapters.b.url", "is not mqtt://host"),
        ({"url": "mqtt://h", "ca_file": "ca.pem"}, "adapters.b.ca_file", "needs TLS"),
        ({"url": "mqtts://h", "key_file": "none.pem"}, "adapters.b.key_file", "no file"),
        ({"password": {"env": "X"}}, "adapters.b.password", "needs a user"),
    ],
)
def test_what_cannot_be(tmp_path, config, where, why):
    with pytest.raises(ConfigError) as e:
        MqttAdapter.from_config("b", config_of(**config), {}, PlantFacts(folder=tmp_path))
    assert e.value.where == where
    assert why in e.value.message


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"qos": 2}, "is not one of"),
        ({"version": "4"}, "is not one of"),
        ({"client_id": "ñ"}, "should match pattern"),
        ({"receive_maximum": 0}, "greater than or equal to 1"),
        ({"url": "mqtt://u:secret@h"}, "a password does not belong into a URL"),
        ({"topics": {"a": {"path": "x", "valus": "csv"}}}, "did you mean 'values'"),
    ],
)
def test_what_the_model_refuses(config, why):
    with pytest.raises(ConfigError, match=why) as e:
        config_of(**config)
    assert "secret@" not in str(e.value)


def test_files_are_beside_the_plant_file(tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    address = broker_address(config_of(url="mqtts://h", ca_file="ca.pem"), tmp_path, "adapters.b")
    assert address.ca_file == tmp_path / "ca.pem"
    assert address.cert_file is None


def test_rules_are_checked_before_anything_starts():
    with pytest.raises(ConfigError) as e:
        MqttAdapter.from_config("b", config_of(), {}, PlantFacts(("site", "area", "device", "signal")))
    assert e.value.where == 'adapters.b.topics."plant/{device}"'
