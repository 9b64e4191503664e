"""Urls of every kind of link."""

import ssl

import pytest

from headrace.adapters.modbus.endpoints import (
    DeviceTls,
    Endpoint,
    ModbusLink,
    SerialLine,
    parse_url,
    tls_reason,
)
from headrace.core.errors import ConfigError


def test_a_serial_line():
    endpoint, unit, timeout_s = parse_url(
        "modbus+rtu:///dev/ttyUSB0?baud=9600&parity=n&stop=2&unit=3&timeout=300ms&echo=1"
    )
    assert endpoint == Endpoint(ModbusLink.RTU, "/dev/ttyUSB0", 0, SerialLine(9_600, "N", 2), has_echo=True)
    assert (unit, timeout_s, str(endpoint)) == (3, 0.3, "/dev/ttyUSB0")
    assert parse_url("modbus+rtu:///dev/serial/by-id/a%20b").endpoint.host == "/dev/serial/by-id/a b"
    assert parse_url("modbus+rtu:///dev/ttyS0").endpoint.line == SerialLine(19_200, "E", 1), "the standard's"


def test_silence_and_characters():
    line = SerialLine(9_600, "N", 1)
    assert line.character_s == pytest.approx(10 / 9_600)
    assert SerialLine(9_600, "E", 1).character_s == pytest.approx(11 / 9_600)
    assert line.silence_s == pytest.approx(3.5 * 11 / 9_600)
    assert SerialLine(115_200).silence_s == 0.00175


def test_tls_and_device_servers():
    files = DeviceTls(ca_file="ca.pem")
    tls = parse_url("modbus+tls://plc?name=oven1", files).endpoint
    assert (tls.port, tls.tls, tls.server_name) == (802, files, "oven1")
    assert parse_url("modbus+tls://plc").endpoint.tls == DeviceTls()
    assert parse_url("modbus+tcp://plc", files).endpoint.tls is None
    assert parse_url("modbus+rtutcp://moxa:4001?echo=1").endpoint == Endpoint(
        ModbusLink.RTU_TCP, "moxa", 4_001, has_echo=True
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("modbus+rtu://dev/ttyUSB0", "names no serial line; write modbus"),
        ("modbus+rtu:///", "names no serial line"),
        ("modbus+rtu:///dev/ttyS0?baud=9601", "baud is one of 300, 600"),
        ("modbus+rtu:///dev/ttyS0?parity=X", "parity is N, E or O"),
        ("modbus+rtu:///dev/ttyS0?stop=3", "and stop 1 or 2"),
        ("modbus+rtu:///dev/ttyS0?echo=yes", "echo is 0, or 1"),
        ("modbus+rtu:///dev/ttyS0?unit=0", "unit is 1 to 247"),
        ("modbus+rtu:///dev/ttyS0?unit=248", "unit is 1 to 247"),
        ("modbus+rtutcp://moxa", "rtutcp needs a port"),
        ("modbus+rtutcp://moxa:4001?baud=9600", "unknown option 'baud'"),
        ("modbus+tcp://plc?name=x", "unknown option 'name'"),
        ("modbus+udp://plc", "is not modbus"),
        ("rtu:///dev/ttyS0", "is not modbus"),
    ],
)
def test_urls_that_cannot_be(url, why):
    with pytest.raises(ConfigError, match=why):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "modbus+tcp://plc:502?unit=7",
        "modbus+tcp://[::1]:502?unit=7",
        "modbus+tls://plc:802?unit=7&name=oven1",
        "modbus+rtu:///dev/ttyS0?unit=7&baud=9600&parity=N&stop=2&echo=1",
        "modbus+rtutcp://moxa:4001?unit=7&echo=1",
    ],
)
def test_a_unit_is_written_as_it_is_read(url):
    found = parse_url(url)
    assert found.endpoint.url(found.unit) == url


def test_tls_says_why_in_words(tmp_path):
    refused = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert")
    refused.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert tls_reason(refused) == "TLS: tlsv13 alert certificate required"
    assert tls_reason(ConnectionRefusedError(111, "refused")) == "Connection refused"
    with pytest.raises(ConfigError, match="TLS files can't be used: No such file"):
        DeviceTls(ca_file=tmp_path / "none.pem").context()
