"""Settings of the Kafka adapter: what is refused, what the library gets, times of messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.adapters.base import PlantFacts
from headrace.adapters.kafka.adapter import KafkaAdapter
from headrace.adapters.kafka.config import StartAt, library_settings, message_time, start_at
from headrace.adapters.kafka.session import subscription
from headrace.core.clock import NO_TIME
from headrace.core.errors import ConfigError
from headrace.core.problems import validate_section

RULE = {"path": "leon/{line}/{message_key}/{key}"}
BASE = {"brokers": ["h:9092"], "topics": {"plant.{line}": RULE}}


def adapter_of(folder=None, levels=(), **config):
    facts = PlantFacts(levels) if folder is None else PlantFacts(levels, folder=folder)
    settings = validate_section(KafkaAdapter.Config, {**BASE, **config}, "adapters.k")
    return KafkaAdapter.from_config("k", settings, {}, facts)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"brokers": []}, "brokers"),
        ({"brokers": ["kafka://h:9092"]}, "'kafka://h:9092' is not host:9092"),
        ({"brokers": ["h:70000"]}, "is not host:9092"),
        ({"brokers": ["h:1,g:2"]}, "is not host:9092"),
        ({"ca_file": "x.pem"}, "needs TLS: write tls = true"),
        ({"tls": True, "ca_file": "x.pem"}, "no file "),
        ({"tls": True, "cert_file": "here.pem"}, "a certificate needs its key_file"),
        ({"user": "ann"}, "a user needs a password"),
        ({"password": {"env": "X"}}, "a password a user"),
        ({"password": "geheim"}, "a secret is"),
        ({"mechanism": "GSSAPI"}, "mechanism"),
        ({"start": "yesterday"}, "'yesterday' is not earliest, latest, or a time"),
        ({"topics": {}}, r'there is no topic; name at least one: "plant.\{device\}"'),
        ({"topics": {"plant/{line}": RULE}}, "its levels are parted by '.'"), ({"topics": {"plant.x{line}": RULE}}, "is not a literal level"),
        ({"topics": {"plant/x.{line}": RULE}}, "its levels are parted by '.'"),
        ({"topics": {"plant.{message_key}": RULE}}, "message_key"),
        ({"topics": {"plant.{key}": RULE}}, "which names values"),
        ({"topics": {"plant.{x}": RULE}}, r"names \{line\}; the topic has \{x\}, \{message_key\}"),
        ({"topics": {"plant.{line}": {"path": "a/{host}/{key}", "values": "line"}}}, "say where {measurement} goes"),
        ({"topics": {"plant.{line}": {"path": "a/{measurement}/{key}", "values": "line", "time": "ts"}}}, "remove time"),
        ({"topics": {"plant.{line}": {"path": "a/{measurement}", "values": "line"}}}, "must end in a level {key}"),
        ({"topics": {"plant.{line}": {"path": "a/{host}/{key}", "values": "arrow"}}}, "names {host}"),
        ({"options": {"group.id": "x"}}, "'group.id' is set by Headrace; write group"),
        ({"options": {"enable.auto.commit": True}}, "'enable.auto.commit' is set by Headrace$"),
        ({"options": {"sasl.password": "geheim"}}, "'sasl.password' can't be given here; secrets are"),
        ({"options": {"ssl.key.pem": "geheim"}}, "'ssl.key.pem' can't be given here"),
        ({"options": {"fetch.max.bite": 1}}, 'No such configuration property: "fetch.max.bite"'),
        ({"options": {"fetch.max.bytes": "many"}}, 'Invalid value for configuration property "fetch.max.bytes"'),
    ],
)  # fmt: skip
def test_what_is_refused(config, said, tmp_path):
    (tmp_path / "here.pem").touch()
    with pytest.raises(ConfigError, match=said.replace("{line}", r"\{line\}")) as error:
        adapter_of(tmp_path, **config)
    assert "geheim" not in str(error.value)
    assert error.value.where.startswith("adapters.k")


def test_a_plant_has_its_levels():
    with pytest.raises(ConfigError, match="has 4 levels, expected 2: site/signal"):
        adapter_of(levels=("site", "signal"))


def test_what_the_library_gets(tmp_path, monkeypatch):
    monkeypatch.setenv("PW", "secret")
    monkeypatch.setenv("KEY", "other")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    plain = adapter_of()
    found = library_settings(plain._config, "k", tmp_path)
    assert (found["group.id"], found["security.protocol"], found["reconnect.backoff.max.ms"]) == (
        "headrace-k", "PLAINTEXT", 30_000,
    )  # fmt: skip
    assert not {"group.instance.id", "ssl.ca.location", "sasl.mechanism"} & found.keys()
    assert library_settings(adapter_of(tls=True)._config, "k", tmp_path)["ssl.ca.location"] == "probe"
    whole = adapter_of(
        tmp_path, brokers=["h:1", "[::1]:2", "g"], group="mine", member="m1", tls=True, ca_file="ca.pem", cert_file="cert.pem",
        key_file="key.pem", key_password={"env": "KEY"}, user="ann", password={"env": "PW"}, mechanism="SCRAM-SHA-512",
        timeout="1ms", options={"fetch.max.bytes": 2_000_000, "session.timeout.ms": 7_000},
    )  # fmt: skip
    assert library_settings(whole._config, "k", tmp_path).items() >= {
        "bootstrap.servers": "h:1,[::1]:2,g", "group.id": "mine", "group.instance.id": "m1", "security.protocol": "SASL_SSL",
        "ssl.ca.location": f"{tmp_path}/ca.pem", "ssl.certificate.location": f"{tmp_path}/cert.pem",
        "ssl.key.location": f"{tmp_path}/key.pem", "ssl.key.password": "other", "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "ann", "sasl.password": "secret", "socket.timeout.ms": 10, "fetch.max.bytes": 2_000_000,
        "session.timeout.ms": 7_000, "enable.auto.commit": False, "auto.offset.reset": "earliest",
    }.items()  # fmt: skip
    only_user = adapter_of(user="ann", password={"env": "PW"})
    assert library_settings(only_user._config, "k", tmp_path)["security.protocol"] == "SASL_PLAINTEXT"


def test_where_a_group_begins():
    assert start_at("earliest", "UTC", "a") == StartAt(True)
    assert start_at("latest", "UTC", "a") == StartAt(False)
    assert start_at("2026-11-01T00:00:00+01:00", "UTC", "a") == StartAt(False, 1_793_487_600_000)
    assert start_at("2026-11-01T00:00:00", "Europe/Madrid", "a") == StartAt(False, 1_793_487_600_000)


@pytest.mark.parametrize(
    ("levels", "separator", "pattern"),
    [
        ("plant.+.raw", ".", "^plant[.][^.]+[.]raw$"), ("plant.#", ".", "^plant([.].*)?$"), ("#", ".", "^.*$"),
        ("plant-+-v1.0", "-", "^plant-[^-]+-v1[.]0$"), ("a_#", "_", "^a(_.*)?$"),
    ],
)  # fmt: skip
def test_what_is_subscribed_to(levels, separator, pattern):
    assert subscription(levels, separator) == pattern


def test_separators_are_chosen():
    adapter = adapter_of(separator="-", topics={"plant-{line}": RULE})
    assert adapter._rules[0].pattern.filter == "plant-+"


@given(st.integers(-(2**63), 2**63), st.integers(0, 2**62))
def test_a_time_of_a_message_is_one_or_none(ts_ms, offset):
    ts_ns = message_time(ts_ms, offset)
    if ts_ns != NO_TIME:
        assert ts_ns // 1_000_000 == ts_ms
        assert ts_ns < 2**63
    else:
        assert not 0 < ts_ms < 9_223_372_036_853


@given(st.integers(1, 2**40), st.integers(0, 2**40), st.integers(1, 9_999))
def test_messages_of_a_millisecond_do_not_meet(ts_ms, offset, step):
    assert message_time(ts_ms, offset) != message_time(ts_ms, offset + step)


def test_a_table_of_tags_names_topics_and_keys():
    adapter = adapter_of(topics={"plant.{line}": {"path": "leon/{line}/{key}"}})
    assert adapter.own_path("plant.line1#t") == "leon/line1/t"
