"""How we get into a server: security policy, certificates, who we are; and whether the server is the right one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto import security_policies, uacrypto
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from headrace.adapters.opcua.config import OpcuaConfig, ServerAddress
from headrace.core.errors import ConfigError, NotConnected

_PEM = b"-----BEGIN"
_MODES = {1: "None", 2: "Sign", 3: "SignAndEncrypt"}


class ServerRefuses(NotConnected):
    """The server won't have us, or is not the one we trust: someone has to change something."""


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """A server and how to get in; files lie in `folder`, secrets are read when needed."""

    server: ServerAddress
    config: OpcuaConfig
    folder: Path
    timeout_s: float

    async def prepare(self, client: Client) -> None:
        """Tell a client who we are and how to speak.

        Raises
        ------
        ConfigError : a file or secret can't be read. ServerRefuses : the server is not the one, or offers less.
        NotConnected, OSError, TimeoutError, ua.UaError : it can't be asked.
        """
        config = self.config
        if config.user is not None:
            client.set_user(config.user)
            if config.password is not None:
                client.set_password(config.password.read(self.folder))
        if config.user_cert_file is not None and config.user_key_file is not None:
            client.user_certificate = self._certificate(config.user_cert_file)
            client.user_private_key = await self._key(config.user_key_file)
        if config.security != "None" and config.cert_file is not None and config.key_file is not None:
            own = self._certificate(config.cert_file)
            client.application_uri = application_uri(own) or client.application_uri
            policy = getattr(security_policies, f"SecurityPolicy{config.security}")
            mode = getattr(ua.MessageSecurityMode, config.security_mode)
            shown = self._right_one(await client.connect_and_get_server_endpoints(), policy.URI, mode)
            key = await self._key(config.key_file)
            client.security_policy = policy(shown, own, key, mode)
            client.uaclient.set_security(client.security_policy)

    def _right_one(self, endpoints: list[Any], policy: str, mode: ua.MessageSecurityMode) -> x509.Certificate:
        """The certificate that the server shows, where it offers what we want and is one we trust."""
        fit = [e for e in endpoints if e.SecurityPolicyUri == policy and e.SecurityMode == mode]
        if not fit:
            raise ServerRefuses(
                f"the server offers {offers(endpoints)}; set security and security_mode to one of them"
            )
        shown: x509.Certificate | None = uacrypto.x509_from_der(fit[0].ServerCertificate)
        if shown is None:
            raise ServerRefuses("the server shows no certificate")
        if self.config.server_cert_file is not None:
            trusted = self._trusted(self.folder / self.config.server_cert_file)
            if shown.public_bytes(Encoding.DER) not in trusted:
                raise ServerRefuses(
                    f"the server's certificate ({fingerprint(shown)}) is not in {self.config.server_cert_file}; "
                    "see whether it is the right server, then add it"
                )
        return shown

    def _trusted(self, place: Path) -> list[bytes]:
        files = sorted(one for one in place.iterdir() if one.is_file()) if place.is_dir() else [place]
        return [read_certificate(file).public_bytes(Encoding.DER) for file in files]

    def _certificate(self, name: str) -> x509.Certificate:
        return read_certificate(self.folder / name)

    async def _key(self, name: str) -> Any:
        try:
            return await uacrypto.load_private_key(str(self.folder / name))
        except (OSError, ValueError, TypeError) as e:
            raise ConfigError(f"{self.folder / name} is no private key that can be read: {e}") from e


def read_certificate(file: Path) -> x509.Certificate:
    """A certificate, PEM or DER. Raises `ConfigError`."""
    try:
        data = file.read_bytes()
        if data.lstrip().startswith(_PEM):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except (OSError, ValueError) as e:
        raise ConfigError(f"{file} is no certificate that can be read: {e}") from e


def application_uri(certificate: x509.Certificate) -> str:
    """The application that a certificate is of; servers compare it with what we say. Empty where it says none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, as servers' own tools show it: ``sha256 4f:1a:...``."""
    from cryptography.hazmat.primitives.hashes import SHA256

    return "sha256 " + certificate.fingerprint(SHA256()).hex(":")


def offers(endpoints: list[Any]) -> str:
    """What a server offers: ``None, Basic256Sha256/SignAndEncrypt``."""
    found = []
    for one in endpoints:
        policy = (one.SecurityPolicyUri or "").rpartition("#")[2]
        found.append(policy if policy == "None" else f"{policy}/{_MODES.get(int(one.SecurityMode), '?')}")
    return ", ".join(dict.fromkeys(found)) or "nothing"
