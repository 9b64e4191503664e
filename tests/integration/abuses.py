"""What clients that behave badly do to a port."""

import contextlib
import http.client
import resource
import socket


def send_gigabyte(where, path, how):
    """Send a body of 1 GB; the status of the answer, None where it was lost while we still sent.

    how : ``announced`` by its length, or ``chunked``.
    """
    connection = http.client.HTTPConnection(*where, timeout=60)
    part = bytes(1 << 20)
    connection.putrequest("POST", path)
    if how == "announced":
        connection.putheader("Content-Length", str(1 << 30))
    else:
        connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    status = None
    with contextlib.suppress(ConnectionError):
        for _ in range(1_024):
            connection.send(part if how == "announced" else b"%x\r\n%s\r\n" % (len(part), part))
    with contextlib.suppress(ConnectionError):
        status = connection.getresponse().status
    connection.close()
    return status


@contextlib.contextmanager
def idle_connections(where, n):
    """Up to `n` connections that ask nothing, as many as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, n + 2_000), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        yield [
            stack.enter_context(socket.create_connection(where, timeout=30))
            for _ in range(min(n, hard - 1_000))
        ]


def ask_and_take_nothing(client, path, then_vanish=False):
    """Ask for a table on a connection and leave it there, or read the answer's first line and go away."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/csv\r\n\r\n".encode())
    if then_vanish:
        client.recv(1_000)
        client.close()
