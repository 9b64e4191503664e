"""Certificates for tests, made by openssl as anybody would make them."""

import shutil
import subprocess

import pytest

NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2")


def make_certificate(folder, name="", *more):
    """A certificate that vouches for itself and for this machine: ``<name>cert.pem`` and ``<name>key.pem``."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    files = ("-keyout", f"{name}key.pem", "-out", f"{name}cert.pem", "-subj", f"/CN={name or 'plant'}")
    command = [openssl, "req", "-x509", *KEY, *(more or ("-nodes",)), *files, "-addext", NAMES]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
