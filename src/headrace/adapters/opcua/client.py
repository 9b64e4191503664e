"""One connection to a server, for one session: asyncua's client with deadlines, and its services as bytes.

A connection is used once. After a loss a new client is made: asyncua's can hang when it is connected again
(opcua-asyncio issue 1660). Where only the wire was cut it goes on with the session of the one before, if the server still
has it: its subscriptions are there, with what they have queued.

Source: OPC 10000-4, section 6.7 (re-establishing connections).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asyncua import Client, ua
from asyncua.ua.ua_binary import Primitives, struct_from_binary, struct_to_binary

from headrace.adapters.meters import reason_of
from headrace.adapters.opcua.addresses import NodeAddress
from headrace.adapters.opcua.config import ServerAddress
from headrace.adapters.opcua.security import ServerAccess, ServerRefuses, offers
from headrace.adapters.opcua.statuses import status_text
from headrace.adapters.pacing import ConnectPacer
from headrace.core.clock import thread_cpu_ns
from headrace.core.errors import HeadraceError, NotConnected

_CLOSE_S = 0.5
_SESSION_MS = 60_000
_BURST = 16
"""Requests that are sent at once after a quiet time: those of a beginning, or of one round of reads."""
_FORMS = {
    "i": ua.NodeIdType.Numeric, "s": ua.NodeIdType.String, "g": ua.NodeIdType.Guid, "b": ua.NodeIdType.ByteString,
}  # fmt: skip
_REFUSALS = {
    ua.StatusCodes.BadUserAccessDenied, ua.StatusCodes.BadIdentityTokenRejected,
    ua.StatusCodes.BadIdentityTokenInvalid, ua.StatusCodes.BadSecurityChecksFailed,
    ua.StatusCodes.BadSecurityPolicyRejected, ua.StatusCodes.BadSecurityModeRejected,
    ua.StatusCodes.BadCertificateInvalid, ua.StatusCodes.BadCertificateUntrusted,
    ua.StatusCodes.BadCertificateUriInvalid, ua.StatusCodes.BadCertificateTimeInvalid,
    ua.StatusCodes.BadCertificateUseNotAllowed, ua.StatusCodes.BadCertificateHostNameInvalid,
    ua.StatusCodes.BadCertificateRevoked, ua.StatusCodes.BadCertificateChainIncomplete,
    ua.StatusCodes.BadUserSignatureInvalid,
}  # fmt: skip
# What matters of it we say ourselves, once.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class ServiceFailed(HeadraceError):
    """The server answers a request with an error of its own: `code`."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"the server answers {what} with {status_text(code)}")
        self.code = code


class _ResumingClient(Client):  # type: ignore[misc]
    """asyncua's client, which activates the session of another one where it is told so, and else makes its own.

    asyncua keeps sessions in a file for this, and asks for them by these two methods. Where another make of it does
    otherwise a session is made anew.
    """

    before: Client | None = None

    def _try_load_persisted_session(self) -> bool:
        before = self.before
        if before is None:
            return False
        try:
            self._server_nonce, self._policy_ids = before._server_nonce, before._policy_ids
        except AttributeError:
            return False
        self.uaclient.session.restore_authentication_token(before.uaclient.session.authentication_token)
        policy = self.security_policy
        policy.peer_certificate = policy.peer_certificate or before.security_policy.peer_certificate
        return True

    def _clear_persisted_session(self) -> None:
        self.before = None

    @property
    def is_resumed(self) -> bool:
        """Whether its session is the other one's."""
        before, own = self.before, self.uaclient.session.authentication_token
        return before is not None and bool(own == before.uaclient.session.authentication_token)


class UaConnection:
    """A session at a server.

    Parameters
    ----------
    on_lost : called once, with the reason, when the connection ends by itself.
    before : one that was cut, whose session is gone on with where the server still has it.

    Attributes
    ----------
    is_resumed : whether it is that session, with its subscriptions.
    """

    def __init__(
        self, access: ServerAccess, on_lost: Callable[[str], None], before: UaConnection | None = None
    ) -> None:
        self._access = access
        self._on_lost = on_lost
        self._client = _ResumingClient(
            access.server.url, timeout=access.timeout_s, watchdog_intervall=access.timeout_s
        )
        self._client.before = None if before is None else before._client
        self.is_resumed = False
        self._client.name = self._client.description = "Headrace"
        self._client.session_timeout = _SESSION_MS
        self._client.connection_lost_callback = self._lost
        self._namespaces: list[str] = []
        self.cpu_ns = self.n_bytes = 0
        self._pacer = ConnectPacer(access.config.max_requests_per_s, _BURST)

    async def open(self) -> None:
        """Connect, log in, learn the server's namespaces.

        Raises
        ------
        ServerRefuses : it answers, but does not let us in. NotConnected : no answer, or another one.
        ConfigError : a file or secret can't be read.
        """
        access = self._access
        try:
            await access.prepare(self._client)
            await self._client.connect()
            self.is_resumed, self._client.before = self._client.is_resumed, None
            self._measure()
            found = await self._client.get_namespace_array()
        except ua.UaStatusCodeError as e:
            raise self._refusal(e.code) from e
        except TimeoutError as e:
            raise NotConnected(f"no answer within {access.timeout_s:g} s") from e
        except OSError as e:
            raise NotConnected(f"no connection: {reason_of(e)}") from e
        except ua.UaError as e:
            raise await self._mismatch(e) from e
        self._namespaces = list(found)

    def _refusal(self, code: int) -> NotConnected:
        name = status_text(code)
        if code not in _REFUSALS:
            return NotConnected(f"the server answers {name}")
        config = self._access.config
        if "User" in name or "Identity" in name:
            who = f"user {config.user!r}" if config.user else "us without a user"
            who = "our user certificate" if config.user_cert_file else who
            return ServerRefuses(
                f"the server refuses {who}: {name}; check who may log in there, and the password"
            )
        return ServerRefuses(
            f"the server refuses our certificate or policy: {name}; trust our certificate on the server"
        )

    async def _mismatch(self, error: ua.UaError) -> NotConnected:
        """The words of asyncua for a server that speaks, but otherwise than we do."""
        if "No matching endpoints" not in str(error):
            return NotConnected(f"the server does not speak as expected: {error}")
        found: list[Any] = []
        with contextlib.suppress(OSError, TimeoutError, ua.UaError):
            found = await Client(
                self._access.server.url, self._access.timeout_s
            ).connect_and_get_server_endpoints()
        return ServerRefuses(
            f"the server offers {offers(found)}; set security and security_mode to one of them"
        )

    def _measure(self) -> None:
        """Count the CPU time of asyncua's reading: framing, decryption, session."""
        protocol = self._client.uaclient.protocol
        assert protocol is not None
        receive = protocol.data_received

        def measured(data: bytes) -> None:
            began_ns = thread_cpu_ns()
            self.n_bytes += len(data)
            receive(data)
            self.cpu_ns += thread_cpu_ns() - began_ns

        protocol.data_received = measured

    async def _lost(self, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            self._on_lost(f"connected, but no answer within {self._access.timeout_s:g} s")
        else:
            self._on_lost("closed by the server")

    @property
    def is_cut(self) -> bool:
        """Whether there is no wire any more, or never was."""
        protocol = self._client.uaclient.protocol
        return protocol is None or protocol.transport is None or protocol.transport.is_closing()

    async def close(self, says_goodbye: bool = True) -> None:
        """Close, within half a second; may be called twice, and after a failed `open`.

        Parameters
        ----------
        says_goodbye : to the server, which ends the session then; else it keeps it for a while.
        """
        client = self._client
        client.connection_lost_callback = None
        if not says_goodbye:
            self._abort()
        # A task of its own: asyncua, who ends tasks then, may take for theirs that ours is cancelled.
        closing = asyncio.ensure_future(client.disconnect())
        try:
            await asyncio.wait([closing], timeout=_CLOSE_S)
        finally:
            closing.cancel()
            closing.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody asks for it
            self._abort()

    def _abort(self) -> None:
        protocol = self._client.uaclient.protocol
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()

    # --- services ------------------------------------------------------------------------------------

    def node_id(self, address: NodeAddress) -> ua.NodeId:
        """An address as the server numbers it now.

        Raises
        ------
        LookupError : the server does not know the namespace.
        """
        namespace = address.namespace
        if address.uri:
            if address.uri not in self._namespaces:
                raise LookupError(f"the server has no namespace {address.uri!r}")
            namespace = self._namespaces.index(address.uri)
        return ua.NodeId(address.value(), namespace, _FORMS[address.kind])

    @property
    def server(self) -> ServerAddress:
        """Whose session it is."""
        return self._access.server

    @property
    def namespaces(self) -> list[str]:
        """URIs of the server's namespaces, by index."""
        return self._namespaces

    async def request(self, request: Any, what: str, deadline_s: float | None = None) -> bytes:
        """Send a request when the cap allows; the bytes of its answer, from its type on.

        Parameters
        ----------
        deadline_s : real seconds; 0 waits as long as the connection lives; None as the url says.

        Raises
        ------
        NotConnected : the connection is lost. TimeoutError : no answer in time. ServiceFailed : an error for answer.
        """
        if deadline_s != 0:
            await self._pacer.turn()
        protocol = self._client.uaclient.protocol
        if protocol is None:
            raise NotConnected("the connection is closed")
        try:
            return bytes(await protocol.send_request(request, deadline_s))
        except ua.UaStatusCodeError as e:
            raise ServiceFailed(what, e.code) from e
        except TimeoutError:
            raise
        except (OSError, ua.UaError) as e:
            raise NotConnected(f"connection lost: {e}") from e

    async def ask(self, request: Any, answer: Any, what: str) -> Any:
        """`request`, decoded by asyncua as `answer`. Raises as `request`; NotConnected too where the answer is no such thing."""
        data = await self.request(request, what)
        try:
            found = struct_from_binary(answer, ua.utils.Buffer(data))
        except Exception as e:  # asyncua raises whatever its parts do
            raise NotConnected(f"the answer to {what} is no {answer.__name__}: {e!r}") from e
        code = found.ResponseHeader.ServiceResult.value
        if code >= 0x8000_0000:
            raise ServiceFailed(what, code)
        return found

    async def read_attributes(
        self, nodes: Sequence[ua.NodeId], attribute: ua.AttributeIds
    ) -> list[ua.DataValue]:
        """One attribute of some nodes, as asyncua's own values. Raises as `request`."""
        request = read_request(nodes, attribute)
        return list((await self.ask(request, ua.ReadResponse, "a read")).Results)


class PackedParameters(bytes):
    """Parameters of a request in bytes already."""

    @staticmethod
    def pack(data: bytes) -> bytes:
        """As they are."""
        return data


# asyncua packs a field by the primitive that is called like the field's type.
Primitives.PackedParameters = PackedParameters


@dataclass(slots=True)
class PackedRead:
    """A read whose nodes are packed once for all: to pack a thousand takes asyncua 2.4 ms each time."""

    TypeId: ua.NodeId
    RequestHeader: ua.RequestHeader
    Parameters: PackedParameters

    @classmethod
    def of(cls, nodes: PackedParameters) -> PackedRead:
        """A new request; it gets a header of its own."""
        kind = ua.FourByteNodeId(ua.ObjectIds.ReadRequest_Encoding_DefaultBinary)
        return cls(kind, ua.RequestHeader(), nodes)


def packed_nodes(nodes: Sequence[ua.NodeId]) -> PackedParameters:
    """What `PackedRead` reads."""
    return PackedParameters(struct_to_binary(read_request(nodes).Parameters))


def read_request(nodes: Sequence[ua.NodeId], attribute: ua.AttributeIds = ua.AttributeIds.Value) -> Any:
    """A read of one attribute of some nodes, with both times."""
    request = ua.ReadRequest()
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in nodes]
    return request
