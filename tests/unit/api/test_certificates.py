"""Who is let in by TLS, after the files have changed, too."""

import asyncio
import contextlib
import socket
import ssl

import pytest
from tests.certificates import make_certificate

from headrace.api.certificates import RenewedContext
from headrace.core.tls import TlsFiles


@pytest.fixture
def folder(tmp_path):
    for kind in ("", "old", "new"):
        make_certificate(tmp_path, kind)
    authorities = (tmp_path / "oldcert.pem").read_text() + (tmp_path / "newcert.pem").read_text()
    (tmp_path / "clients.pem").write_text(authorities)
    return tmp_path


def client(folder, kind=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if kind is not None:
        context.load_cert_chain(folder / f"{kind}cert.pem", folder / f"{kind}key.pem")
    return context


@contextlib.asynccontextmanager
async def served(context):
    async def answer(reader, writer):
        writer.write(b"hello\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def is_let_in(port, context):
    """Whether it is; the certificate that it was shown."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        found = await reader.readline() == b"hello\n"
        return found, ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(True))
    except (ssl.SSLError, ConnectionError):
        return False, ""
    finally:
        if writer is not None:
            writer.transport.abort()


async def test_an_authority_that_is_taken_out_lets_nobody_in_any_more(folder):
    context = RenewedContext(TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "clients.pem"))
    old, new = client(folder, "old"), client(folder, "new")
    async with served(context) as port:
        assert (await is_let_in(port, old))[0]
        assert (await is_let_in(port, new))[0]
        assert not (await is_let_in(port, client(folder)))[0]
        (folder / "clients.pem").write_text((folder / "newcert.pem").read_text())
        make_certificate(folder)
        context.renew()
        assert not (await is_let_in(port, old))[0]
        assert await is_let_in(port, new) == (True, (folder / "cert.pem").read_text())


async def test_a_session_from_before_opens_no_door(folder):
    """A session that is gone on with is not verified again."""
    context = RenewedContext(TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "clients.pem"))
    old = client(folder, "old")
    old.maximum_version = ssl.TLSVersion.TLSv1_2  # its sessions are there as soon as it is connected
    async with served(context) as port:
        found, session, _ = await asyncio.to_thread(visit, port, old)
        assert found
        found, session, was_reused = await asyncio.to_thread(visit, port, old, session)
        assert (found, was_reused) == (True, True), "as long as its authority is trusted"
        (folder / "clients.pem").write_text((folder / "newcert.pem").read_text())
        context.renew()
        assert not (await asyncio.to_thread(visit, port, old, session))[0]


def visit(port, context, session=None):
    """Whether a client is let in that goes on with a session, the session it has then, and whether it is that one."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, session=session) as encrypted,
        ):
            return encrypted.recv(6) == b"hello\n", encrypted.session, encrypted.session_reused
    except (ssl.SSLError, ConnectionError):
        return False, None, False


async def test_files_that_can_not_be_read_leave_what_there_is(folder):
    context = RenewedContext(TlsFiles(folder / "cert.pem", folder / "key.pem"))
    shown = (folder / "cert.pem").read_text()
    (folder / "cert.pem").write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        context.renew()
    async with served(context) as port:
        assert await is_let_in(port, client(folder)) == (True, shown), (
            "all clients, where no authority is named"
        )
