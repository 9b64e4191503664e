"""An OPC UA server for tests and trials: settable variables, and servers that fall silent, refuse or go away.

The server is asyncua's: the protocol's other half, but from the same library as our client. What both ends get wrong
alike is not found; `headrace.adapters.opcua.scanner` is our own reading of the encoding and is checked against it.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server import binary_server_asyncio
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.ua_binary import struct_from_binary
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from headrace.adapters.opcua.standard_nodes import add_standard_nodes
from headrace.core.clock import SystemClock

NAMESPACE = "http://headrace.example/simulated"
SERVER_URI = "urn:headrace.example:simulated"
_POLICIES = {
    "None": ua.SecurityPolicyType.NoSecurity,
    "Basic256Sha256/Sign": ua.SecurityPolicyType.Basic256Sha256_Sign,
    "Basic256Sha256/SignAndEncrypt": ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    "Aes128Sha256RsaOaep/SignAndEncrypt": ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    "Aes256Sha256RsaPss/SignAndEncrypt": ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class PagingProcessor(UaProcessor):  # type: ignore[misc]
    """Requests of a client; asyncua's server knows no BrowseNext."""

    async def _process_message(self, typeid: Any, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        if typeid != ua.NodeId(ua.ObjectIds.BrowseNextRequest_Encoding_DefaultBinary):
            return await super()._process_message(typeid, requesthdr, seqhdr, body)
        response = ua.BrowseNextResponse()
        points = struct_from_binary(ua.BrowseNextParameters, body).ContinuationPoints
        response.Parameters.Results = self.iserver.browse_next(points)
        self.send_response(requesthdr.RequestHandle, seqhdr, response)
        return True


class SimulatedUsers:
    """Who may log in: anybody, unless there are passwords or certificates."""

    def __init__(self) -> None:
        self.passwords: dict[str, str] = {}
        self.certificates: list[bytes] = []

    def get_user(
        self,
        iserver: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> User | None:
        """Asked by the server; None refuses."""
        is_open = not self.passwords and not self.certificates
        is_known = username is not None and self.passwords.get(username) == password
        if is_open or is_known or (username is None and certificate in self.certificates):
            return User(role=UserRole.User)
        return None


class OpcuaSimulator:
    """A server with variables below ``Objects/Plant``.

    Parameters
    ----------
    port : where it listens; the same port again after `stop` and `start`.

    Attributes
    ----------
    policies : what it offers, as ``None`` or ``Basic256Sha256/Sign``; taken at `start`.
    n_acknowledged : publish responses that clients have acknowledged; n_reads : nodes read.
    max_per_call : nodes that one read, or one request for items, may have; page : references of a node that one
        browse gives, the rest comes piece by piece. 0: any number.
    keeps_time : whether its CurrentTime goes on; `stop` waits for its next second then. Taken at `start`.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = port
        self.users = SimulatedUsers()
        self.policies: tuple[str, ...] = ("None",)
        self.n_acknowledged = 0
        self.n_reads = 0
        self.max_per_call = 0
        self.page = 0
        self.keeps_time = True
        self._server = Server(user_manager=self.users)
        self._namespace = 0
        self._folder: Any = None
        self._is_up = False
        self._rests: dict[bytes, list[Any]] = {}

    def url(self, node: str = "", timeout: str = "2s") -> str:
        """What to write in the plant file."""
        return f"opc.tcp://{self.host}:{self.port}/plant?timeout={timeout}" + (
            f"&node={node}" if node else ""
        )

    @staticmethod
    def address(name: str) -> str:
        """The node id of a variable, as a profile writes it."""
        return f"nsu={NAMESPACE};s={name}"

    # --- its life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make the server, the first time, and listen."""
        server = self._server
        if self._folder is None:
            binary_server_asyncio.UaProcessor = PagingProcessor
            server.iserver.load_standard_address_space = self._fill
            server.iserver.disabled_clock = not self.keeps_time
            await server.init()
            await server.set_application_uri(SERVER_URI)
            server.set_endpoint(f"opc.tcp://{self.host}:{self.port}/plant")
            self._namespace = await server.register_namespace(NAMESPACE)
            self._folder = await server.nodes.objects.add_folder(self.node("Plant"), "Plant")
            self._count()
        server.iserver.endpoints.clear()
        server._policies.clear()
        server.set_security_policy([_POLICIES[one] for one in self.policies])
        await server.start()
        self._is_up = True

    async def _fill(self, shelf_file: Path | None = None) -> None:
        """Called by the server for the nodes that all servers have."""
        add_standard_nodes(self._server.iserver.node_mgt_service, self._server.iserver.aspace)

    async def stop(self) -> None:
        """Close everything and forget sessions and subscriptions, as a server that is switched off does."""
        if not self._is_up:
            return
        self._is_up = False
        self.resume()
        service = self._server.iserver.subscription_service
        await service.delete_subscriptions(list(service.subscriptions))
        for session in list(self._server.iserver._external_sessions.values()):
            await session.close_session()
        await self._server.stop()

    def drop(self) -> None:
        """Close every client's connection, go on listening."""
        for transport in list(self._server.iserver.asyncio_transports):
            transport.close()

    def hang(self) -> None:
        """From now on read no requests of those who are connected."""
        for transport in self._server.iserver.asyncio_transports:
            transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        for transport in self._server.iserver.asyncio_transports:
            transport.resume_reading()

    # --- faults --------------------------------------------------------------------------------------

    def silence(self) -> None:
        """Present subscriptions publish no more, not even keep-alives; everything else is answered."""
        for one in self._server.iserver.subscription_service.subscriptions.values():
            one.publish_results = _publish_nothing

    def deafen(self) -> None:
        """Present subscriptions send keep-alives and see no change any more."""
        for one in self._server.iserver.subscription_service.subscriptions.values():
            one.enqueue_datachange_event = _see_nothing

    async def end_subscriptions(self) -> None:
        """Tell clients that their subscriptions have ended."""
        for one in self._server.iserver.subscription_service.subscriptions.values():
            one._triggered_statuschanges.append(ua.StatusCode(ua.StatusCodes.BadTimeout))
            one._keep_alive_count = one.data.RevisedMaxKeepAliveCount

    @property
    def n_items(self) -> int:
        """Items that are monitored now."""
        found = self._server.iserver.subscription_service.subscriptions.values()
        return sum(len(one.monitored_item_srv._monitored_items) for one in found)

    def _count(self) -> None:
        """Count what clients ask for, and refuse what is too much."""
        inner, service = self._server.iserver, self._server.iserver.subscription_service
        read, publish, create = inner.attribute_service.read, service.publish, service.create_monitored_items
        browse = inner.view_service.browse

        def counted_read(params: Any) -> Any:
            self.n_reads += len(params.NodesToRead)
            self._check(len(params.NodesToRead))
            return read(params)

        def counted_publish(acks: Any) -> Any:
            some = list(acks)
            self.n_acknowledged += len(some)
            return publish(some)

        async def checked_create(params: Any) -> Any:
            self._check(len(params.ItemsToCreate))
            return await create(params)

        def paged_browse(params: Any) -> Any:
            return [self._paged(result) for result in browse(params)]

        inner.view_service.browse = paged_browse
        inner.browse_next = self._browse_next
        inner.attribute_service.read = counted_read
        service.publish = counted_publish
        service.create_monitored_items = checked_create

    def _paged(self, result: Any) -> Any:
        """A browse result cut to a page."""
        if self.page and len(result.References) > self.page:
            point = str(len(self._rests)).encode()
            self._rests[point] = result.References[self.page :]
            result = ua.BrowseResult(
                ContinuationPoint=point,
                References=result.References[: self.page],
                StatusCode=result.StatusCode,
            )
        return result

    def _browse_next(self, points: Sequence[bytes]) -> list[Any]:
        return [self._paged(ua.BrowseResult(References=self._rests[point])) for point in points]

    def _check(self, n: int) -> None:
        if self.max_per_call and n > self.max_per_call:
            raise ServiceError(ua.StatusCodes.BadTooManyOperations)

    # --- variables -----------------------------------------------------------------------------------

    def node(self, name: str) -> ua.NodeId:
        """The node id of a variable."""
        return ua.NodeId(name, self._namespace)

    async def add(self, name: str, value: Any, kind: str = "Double", folder: Any = None) -> Any:
        """A variable (its node); value and kind as OPC UA's built-in types: ``Int16``, ``String``."""
        variant = ua.Variant(value, ua.VariantType[kind])
        where = self._folder if folder is None else folder
        made = await where.add_variable(self.node(name), name.rpartition(".")[2], variant)
        await self.write(name, value, kind)
        return made

    async def describe(self, name: str, unit: str, low: float, high: float) -> None:
        """Unit and range of a variable, as its properties."""
        variable = self._server.get_node(self.node(name))
        information = ua.EUInformation(DisplayName=ua.LocalizedText(unit))
        await variable.add_property(0, "EngineeringUnits", information)
        await variable.add_property(0, "EURange", ua.Range(low, high))

    async def add_folder(self, name: str) -> Any:
        """A folder below Plant, for variables."""
        return await self._folder.add_folder(self.node(name), name)

    async def set(self, name: str, value: Any, kind: str = "Double") -> None:
        """A variable that has this value; it is made where there is none."""
        if self.node(name) in self._server.iserver.aspace:
            await self.write(name, value, kind)
        else:
            await self.add(name, value, kind)

    async def write(
        self,
        name: str,
        value: Any,
        kind: str = "Double",
        status: int = 0,
        source_ns: int | None = None,
        server_ns: int | None = None,
    ) -> None:
        """A new value, of any kind; `source_ns` is its time (0: none), `server_ns` the server's, else now."""
        now = _time(SystemClock().now_ns() if server_ns is None else server_ns)
        source = now if source_ns is None else _time(source_ns) if source_ns else None
        found = ua.DataValue(ua.Variant(value, ua.VariantType[kind]), ua.StatusCode(status), source, now)
        # The server's own way in refuses what real servers do: another type all of a sudden, a value beside an error.
        attribute = self._server.iserver.aspace[self.node(name)].attributes[ua.AttributeIds.Value]
        attribute.value = found
        for handle, tell in list(attribute.datachange_callbacks.items()):
            await tell(handle, found)

    async def remove(self, name: str) -> None:
        """Delete a variable."""
        await self._server.delete_nodes([self._server.get_node(self.node(name))])

    # --- security ------------------------------------------------------------------------------------

    async def use_certificate(self, pair: CertificatePair) -> None:
        """The server's own certificate; taken at `start`."""
        await self._server.load_certificate(str(pair.cert_file))
        await self._server.load_private_key(str(pair.key_file))


async def _publish_nothing(*args: Any) -> bool:
    return False


async def _see_nothing(*args: Any) -> None:
    return


def _time(ns: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(microseconds=ns // 1_000)


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A self-signed certificate and its key, as files."""

    cert_file: Path
    key_file: Path
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.certificate.public_bytes(Encoding.DER)

    @classmethod
    def make(
        cls, folder: Path, name: str, uri: str = "", encoding: Encoding = Encoding.DER
    ) -> CertificatePair:
        """Make one, of 2,048 bits and valid for a day; `uri` is the application's."""
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = _time(SystemClock().now_ns())
        names: Sequence[x509.GeneralName] = [
            x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            *([x509.UniformResourceIdentifier(uri)] if uri else ()),
        ]  # fmt: skip
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, hashes.SHA256())
        )
        made = cls(folder / f"{name}.der", folder / f"{name}.key.pem", certificate)
        made.cert_file.write_bytes(certificate.public_bytes(encoding))
        made.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return made
