"""Certificates of the public port: which files there are, and whether they belong together."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headrace.core.errors import ConfigError


class TlsNames(Protocol):
    """The keys of a section that name files."""

    @property
    def cert_file(self) -> str | None:
        """Our certificate and its chain."""
        ...

    @property
    def key_file(self) -> str | None:
        """Its key; None where that is in the same file."""
        ...

    @property
    def client_ca_file(self) -> str | None:
        """Authorities of the clients that may connect; None for all clients."""
        ...


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Whole paths: a certificate with its chain, its key, and the authorities whose clients may connect."""

    cert_file: str
    key_file: str
    client_ca_file: str | None = None


def tls_files(names: TlsNames, folder: Path, where: str) -> TlsFiles | None:
    """The files that a section names, looked up from `folder`; None where it names none.

    Raises
    ------
    ConfigError : one is missing or can't be read, holds something else, or the key is not the certificate's.
    """
    if names.cert_file is None:
        for name in ("key_file", "client_ca_file"):
            if getattr(names, name) is not None:
                raise ConfigError("needs cert_file, the certificate of this port", f"{where}.{name}")
        return None
    paths: dict[str, str | None] = {}
    for name in ("cert_file", "key_file", "client_ca_file"):
        text = getattr(names, name)
        paths[name] = None if text is None else str(folder / text)
        if text is not None and not (folder / text).is_file():
            raise ConfigError(f"no file {folder / text}", f"{where}.{name}")
    cert_file = str(paths["cert_file"])
    files = TlsFiles(cert_file, paths["key_file"] or cert_file, paths["client_ca_file"])
    check_files(files, where)
    return files


def check_files(files: TlsFiles, where: str = "") -> None:
    """Make sure that the files can be used together. Raises ConfigError; `where` is their section."""
    for name, path in (("cert_file", files.cert_file), ("client_ca_file", files.client_ca_file)):
        if path is not None:
            _load_certificates(path, f"{where}.{name}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            files.cert_file, files.key_file, password=_none
        )
    except ssl.SSLError as e:
        text = f"{files.key_file} holds no key in PEM that needs no passphrase"
        if e.reason == "KEY_VALUES_MISMATCH":
            text = f"{files.key_file} is not the key of {files.cert_file}"
        raise ConfigError(text, f"{where}.key_file") from e
    except (OSError, _NeedsPassphrase) as e:
        why = getattr(e, "strerror", None) or "it has a passphrase, which nobody could type at a start"
        raise ConfigError(f"{files.key_file} can't be read: {why}", f"{where}.key_file") from e


def _load_certificates(path: str, where: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as e:
        raise ConfigError(f"{path} holds no certificate in PEM", where) from e
    except OSError as e:
        raise ConfigError(f"{path} can't be read: {e.strerror}", where) from e


class _NeedsPassphrase(Exception):
    """A key is encrypted."""


def _none() -> str:
    """What OpenSSL asks where a key is encrypted; without this it would ask the terminal."""
    raise _NeedsPassphrase
