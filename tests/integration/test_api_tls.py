"""The public port over TLS: a real certificate, the command line as its client, and who is let in."""

import json
import signal
import socket
import ssl
import urllib.error
import urllib.request

import pytest
from tests.certificates import make_certificate
from tests.integration.test_cli import RunningPlant
from tests.integration.test_tiers import run

from headrace.core.disk import LocalDisk
from headrace.runtime.announcement import EngineClient, read_announcement

PLANT = """
version = 1
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
cert_file = "cert.pem"
key_file = "key.pem"
client_ca_file = "clientcert.pem"
[adapters.push]
protocol = "http"
path = "leon/x/{host}/{measurement}/{field}"
"""


def make_plant(folder):
    make_certificate(folder)
    make_certificate(folder, "client")
    both = (folder / "clientcert.pem").read_text() + (folder / "clientkey.pem").read_text()
    (folder / "client.pem").write_text(both)
    (folder / "plant.toml").write_text(PLANT)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    make_plant(folder)
    with RunningPlant(folder) as plant:
        yield folder, plant


@pytest.fixture
def served(running):
    folder, plant = running
    return folder, plant.address(folder)


@pytest.fixture
def environment(served, monkeypatch):
    folder, _ = served
    monkeypatch.setenv("HEADRACE_CA_FILE", str(folder / "cert.pem"))
    monkeypatch.setenv("HEADRACE_CERT_FILE", str(folder / "client.pem"))
    return monkeypatch


def send(folder, address, path, body=None, own="client.pem"):
    """Ask as any other client would."""
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    if own:
        context.load_cert_chain(folder / own)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(urllib.request.Request(address + path, data=body), timeout=30) as answer:
        return answer.status, answer.read()


def test_what_is_pushed_and_asked_is_encrypted(served, environment, capsys):
    folder, address = served
    assert address.startswith("https://127.0.0.1:")
    assert send(folder, address, "/api/v2/write?bucket=push", b"m,host=h v=1.5")[0] == 204
    code, out, err = run(capsys, "status", "-t", address, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["samples"]["received"] == 1
    found = json.loads(send(folder, address, "/api/v1/query?pattern=leon/**&last=1h")[1])
    assert [(row["path"], row["value"]) for row in found["rows"]] == [("leon/x/h/m/v", 1.5)]
    code, out, _ = run(capsys, "status", "-t", str(folder / "store"))
    assert (code, f"answers at {address}" in out) == (0, True), "it is found by its store, too"


def test_nobody_is_let_in_without_a_certificate_of_the_authority(served):
    folder, address = served
    with pytest.raises((urllib.error.URLError, OSError)):
        send(folder, address, "/livez", own="")
    (folder / "own.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    with pytest.raises((urllib.error.URLError, OSError)):
        send(folder, address, "/livez", own="own.pem")
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(address.replace("https", "http") + "/livez", timeout=30)


def test_a_client_that_does_not_trust_the_certificate_is_told_what_to_do(served, environment, capsys):
    folder, address = served
    environment.delenv("HEADRACE_CA_FILE")
    code, _, err = run(capsys, "status", "-t", address)
    assert code == 3
    assert "its certificate is not trusted (self-signed certificate); set HEADRACE_CA_FILE" in err
    environment.setenv("HEADRACE_CA_FILE", str(folder / "plant.toml"))
    code, _, err = run(capsys, "status", "-t", address)
    assert (code, "HEADRACE_CA_FILE is " in err, "which can't be used: " in err) == (2, True, True), err
    environment.setenv("HEADRACE_CA_FILE", str(folder / "cert.pem"))
    environment.setenv("HEADRACE_CERT_FILE", str(folder / "nothing.pem"))
    code, _, err = run(capsys, "status", "-t", address)
    assert (code, "HEADRACE_CERT_FILE is " in err, "No such file" in err) == (2, True, True), err


def test_a_new_certificate_is_taken_without_a_restart(running):
    folder, plant = running
    address = plant.address(folder)
    host, port = address.removeprefix("https://").split(":")

    def shown():
        return shown_by(folder, (host, int(port)))

    before = shown()
    assert before == (folder / "cert.pem").read_text()
    key = (folder / "key.pem").read_text()
    make_certificate(folder)
    new = (folder / "key.pem").read_text()
    (folder / "key.pem").write_text(key)
    plant.process.send_signal(signal.SIGHUP)
    assert "api.certificate" not in kinds_told(folder, "api.certificate-refused")
    assert shown() == before
    (folder / "key.pem").write_text(new)
    plant.process.send_signal(signal.SIGHUP)
    plant.wait_for(folder, lambda: shown() != before)
    assert shown() == (folder / "cert.pem").read_text()
    assert send(folder, address, "/livez")[0] == 200
    assert kinds_told(folder, "api.certificate").count("api.certificate-refused") == 1


def test_an_authority_that_is_taken_out_is_trusted_no_more(running):
    folder, plant = running
    address = plant.address(folder)
    assert send(folder, address, "/livez")[0] == 200
    make_certificate(folder, "other")
    both = (folder / "othercert.pem").read_text() + (folder / "otherkey.pem").read_text()
    (folder / "other.pem").write_text(both)
    own = (folder / "clientcert.pem").read_text()
    (folder / "clientcert.pem").write_text((folder / "othercert.pem").read_text())
    plant.process.send_signal(signal.SIGHUP)
    try:
        plant.wait_for(folder, lambda: is_let_in(folder, address, "other.pem"))
        assert not is_let_in(folder, address, "client.pem")
    finally:
        (folder / "clientcert.pem").write_text(own)
        plant.process.send_signal(signal.SIGHUP)
        plant.wait_for(folder, lambda: is_let_in(folder, address, "client.pem"))


def is_let_in(folder, address, own):
    try:
        return send(folder, address, "/livez", own=own)[0] == 200
    except (urllib.error.URLError, OSError):
        return False


def shown_by(folder, address):
    """The certificate that a new connection is shown, in PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(folder / "client.pem")
    with socket.create_connection(address, 10) as plain, context.wrap_socket(plain) as encrypted:
        return ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True))


def kinds_told(folder, until):
    """Kinds of the events, up to one of `until`."""
    by = read_announcement(LocalDisk(folder / "store"))
    kinds = []
    for event in EngineClient.announced(by).follow("/api/v1/events?after=0"):
        kinds += [event["kind"]] if event else []
        if until in kinds:
            return kinds
    raise AssertionError("it ended")


def test_what_is_wrong_with_the_files_is_told_before_the_start(tmp_path, capsys):
    make_plant(tmp_path)
    plant = str(tmp_path / "plant.toml")
    assert run(capsys, "check", plant)[0] == 0
    for key, value, says in (
        ("key_file", "clientkey.pem", "clientkey.pem is not the key of "), ("cert_file", "lost.pem", "no file "),
    ):  # fmt: skip
        for name in ("check", "run"):
            code, out, err = run(capsys, name, plant, "--set", f"api.{key}={value}")
            assert (code, f"api.{key}" in out + err, says in out + err) == (2, True, True), out + err
    code, out, err = run(capsys, "run", plant, "--no-web")
    assert (code, "only the api process speaks TLS" in err) == (2, True), err
