"""Certificates of the public port: what is wrong with them is told at the start."""

import pytest
from tests.certificates import make_certificate

from headrace.core.config import ApiSection
from headrace.core.errors import ConfigError
from headrace.core.tls import TlsFiles, tls_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    make_certificate(folder)
    make_certificate(folder, "other")
    make_certificate(folder, "locked", "-passout", "pass:secret")
    both = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "both.pem").write_text(both)
    (folder / "text").write_text("neither")
    return folder


def files_of(folder, **names):
    return tls_files(ApiSection(**names), folder, "api")


def test_files_are_looked_up_beside_the_plant_file(folder):
    assert files_of(folder) is None
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    assert files_of(folder, cert_file="cert.pem", key_file=key) == TlsFiles(cert, key)
    found = files_of(folder, cert_file="both.pem", client_ca_file="othercert.pem")
    assert found == TlsFiles(*[str(folder / "both.pem")] * 2, str(folder / "othercert.pem"))


@pytest.mark.parametrize(
    ("names", "where", "says"),
    [
        ({"key_file": "key.pem"}, "key_file", "needs cert_file"), ({"client_ca_file": "cert.pem"}, "client_ca_file", "needs cert_file"),
        ({"cert_file": "cert.pam", "key_file": "key.pem"}, "cert_file", "no file "), ({"cert_file": "cert.pem", "key_file": "x"}, "key_file", "no file "),
        ({"cert_file": "cert.pem", "key_file": "otherkey.pem"}, "key_file", "/otherkey.pem is not the key of "),
        ({"cert_file": "cert.pem"}, "key_file", "/cert.pem holds no key in PEM"), ({"cert_file": "cert.pem", "key_file": "text"}, "key_file", "/text holds no key in PEM"),
        ({"cert_file": "key.pem"}, "cert_file", "/key.pem holds no certificate in PEM"), ({"cert_file": "text"}, "cert_file", "/text holds no certificate"),
        ({"cert_file": "both.pem", "client_ca_file": "text"}, "client_ca_file", "/text holds no certificate in PEM"),
        ({"cert_file": "lockedcert.pem", "key_file": "lockedkey.pem"}, "key_file", "it has a passphrase"),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_told(folder, names, where, says):
    with pytest.raises(ConfigError) as e:
        files_of(folder, **names)
    assert (e.value.where, says in e.value.message) == (f"api.{where}", True), e.value.message


def test_files_that_can_not_be_read(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    names = {"cert_file": "cert.pem", "key_file": "key.pem"}
    for method, where in (("load_cert_chain", "api.key_file"), ("load_verify_locations", "api.cert_file")):
        monkeypatch.setattr(f"ssl.SSLContext.{method}", refuse)
        with pytest.raises(ConfigError, match="can't be read: Permission denied") as e:
            files_of(folder, **names)
        assert e.value.where == where
