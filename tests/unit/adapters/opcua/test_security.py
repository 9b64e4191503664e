"""Certificates and keys, and what a server says of them."""

import datetime
from types import SimpleNamespace

import pytest
from asyncua import Client, ua
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.adapters.opcua.desk import ScriptedConnection, read_response

from headrace.adapters.opcua.addresses import parse_node
from headrace.adapters.opcua.browsing import address_of, unit_text
from headrace.adapters.opcua.client import ServiceFailed, UaConnection
from headrace.adapters.opcua.config import OpcuaConfig, ServerAddress
from headrace.adapters.opcua.probe import probe_server, shown
from headrace.adapters.opcua.security import ServerAccess, ServerRefuses, application_uri, read_certificate
from headrace.core.errors import ConfigError, NotConnected

CODES = ua.StatusCodes


def access(folder, **config):
    return ServerAccess(ServerAddress("127.0.0.1", 1), OpcuaConfig(devices={}, **config), folder, 0.5)


def certificate(*names):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    day = datetime.datetime(2026, 11, 27, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(day).not_valid_after(day + datetime.timedelta(days=1))
    )  # fmt: skip
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return made.sign(key, SHA256())


def test_certificates_are_read_in_either_form(tmp_path):
    one = certificate(x509.UniformResourceIdentifier("urn:x"))
    for encoding in (Encoding.PEM, Encoding.DER):
        (tmp_path / "c").write_bytes(one.public_bytes(encoding))
        assert read_certificate(tmp_path / "c") == one
    (tmp_path / "c").write_bytes(b"what is this?")
    with pytest.raises(ConfigError, match="c is no certificate that can be read"):
        read_certificate(tmp_path / "c")


def test_the_application_is_what_our_certificate_says():
    names = x509.DNSName("h"), x509.UniformResourceIdentifier("urn:x")
    assert [application_uri(certificate(*some)) for some in (names, names[:1], ())] == ["urn:x", "", ""]


async def test_a_key_that_is_none(tmp_path):
    (tmp_path / "k").write_bytes(b"what is this?")
    with pytest.raises(ConfigError, match="k is no private key that can be read"):
        await access(tmp_path)._key("k")


async def test_a_user_without_a_password(tmp_path):
    client = Client("opc.tcp://127.0.0.1:1")
    await access(tmp_path, user="me").prepare(client)
    assert (client._username, client._password) == ("me", None)


def test_a_server_that_shows_no_certificate(tmp_path):
    endpoint = SimpleNamespace(SecurityPolicyUri="p", SecurityMode=1, ServerCertificate=None)
    with pytest.raises(ServerRefuses, match="shows no certificate"):
        access(tmp_path)._right_one([endpoint], "p", 1)


async def test_refusals_in_words(tmp_path):
    def refusal(code, **config):
        found = UaConnection(access(tmp_path, **config), lambda reason: None)._refusal(code)
        return isinstance(found, ServerRefuses), str(found)

    assert refusal(CODES.BadTooManySessions) == (False, "the server answers BadTooManySessions")
    refuses, text = refusal(CODES.BadSecurityChecksFailed)
    assert refuses
    assert text.endswith("BadSecurityChecksFailed; trust our certificate on the server")
    assert "refuses us without a user" in refusal(CODES.BadIdentityTokenRejected)[1]
    assert "refuses user 'me'" in refusal(CODES.BadUserAccessDenied, user="me")[1]
    one = UaConnection(access(tmp_path), lambda reason: None)
    odd = await one._mismatch(ua.UaError("odd"))
    assert (type(odd), str(odd)) == (NotConnected, "the server does not speak as expected: odd")
    refused = await one._mismatch(ua.UaError("No matching endpoints"))
    assert "the server offers nothing" in str(refused), "nor can it be asked"
    with pytest.raises(NotConnected, match="the connection is closed"):
        await one.request(ua.ReadRequest(), "a read")
    with pytest.raises(NotConnected, match="no connection: Connection refused"):
        await one.open()
    await one.close()


async def test_an_answer_that_is_an_error():
    connection = ScriptedConnection(Read=[read_response(code=CODES.BadShutdown)])
    with pytest.raises(ServiceFailed, match="answers a read with BadShutdown"):
        await connection.read_attributes([ua.NodeId(1)], ua.AttributeIds.Value)


# --- for people ---------------------------------------------------------------------------------------


async def test_a_probe_of_a_server_that_says_little():
    none = ua.DataValue()
    found = await probe_server(ScriptedConnection(Read=[read_response(none, none, none)]), None)
    assert (found["state"], found["product"]) == ("unknown", "")
    found |= {"device": "l/d", "peer": "h:1", "connection": "made for this", "seconds": 0.0123}
    assert shown(found)["facts"][:3] == [
        ("device", "l/d at h:1"), ("connection", "made for this, 0.012 s"), ("server", "unknown"),
    ]  # fmt: skip
    assert "table" not in shown(found)
    variable = dict.fromkeys(
        ("address", "name", "type", "value", "unit", "status", "quality", "source_ns", "server_ns"), ""
    )
    told = shown(
        {**found, "variable": {**variable, "range": [0.0, 400.0], "has_overflown": True, "unit": "degC"}}
    )
    assert told["facts"][4:] == [
        ("range", "0 to 400 degC"), ("overflow", "the server's queue has lost values before this one"),
    ]  # fmt: skip
    assert told["table"]["columns"][-2:] == ["source_time_ns", "server_time_ns"]


async def test_properties_of_a_variable_that_are_none():
    paths = ua.TranslateBrowsePathsToNodeIdsResponse()
    target = ua.BrowsePathTarget(TargetId=ua.ExpandedNodeId(7, 0))
    paths.Results = [ua.BrowsePathResult(Targets=some) for some in ([], [target])]
    none = ua.DataValue()
    connection = ScriptedConnection(
        Read=[
            read_response(0, "odd", "1"),
            read_response(1.5),
            read_response(none),
            read_response("0 to 400"),
        ],
        TranslateBrowsePathsToNodeIds=[paths],
    )
    found = await probe_server(connection, parse_node("nsu=urn:x;s=a"))
    assert (found["state"], found["product"]) == ("Running", "odd 1")
    variable = found["variable"]
    assert (variable["value"], variable["unit"], variable["range"], variable["name"]) == (1.5, "", None, "")
    assert (variable["node"], variable["source_ns"]) == ("ns=1;s=a", None)


def test_units_and_addresses_of_what_is_found():
    assert [unit_text(None), unit_text(ua.EUInformation(DisplayName=ua.LocalizedText(None)))] == ["", ""]
    node = ua.NodeId(b"xy", 2, ua.NodeIdType.ByteString)
    assert str(address_of(node, ["u0", "u1"])) == "ns=2;b=eHk="
    assert str(address_of(node, ["u0", "u1", "urn:2"])) == "nsu=urn:2;b=eHk="
