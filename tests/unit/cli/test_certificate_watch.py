"""Certificates are seen when they change, once; those that can't be used are left alone."""

import asyncio
import os

import pytest
from tests.certificates import make_certificate

from headrace.cli.certificate_watch import LOOK_S, CertificateWatch
from headrace.core.clock import VirtualClock
from headrace.core.tls import TlsFiles


class World:
    """A watch of files in a folder, what it tells, and how often the port was made to read them."""

    def __init__(self, folder):
        self.folder, self.told, self.n_renewed, self.is_up = folder, [], 0, True
        make_certificate(folder)
        self.files = TlsFiles(str(folder / "cert.pem"), str(folder / "key.pem"), str(folder / "cert.pem"))
        self.clock = VirtualClock()
        self.watch = CertificateWatch(
            self.files, self.clock, self.renew, lambda *said: self.told.append(said)
        )

    def renew(self):
        self.n_renewed += self.is_up
        return self.is_up

    async def look(self):
        """How often it was renewed, and the kinds of what was told, by one more look."""
        await self.watch.look()
        told, self.told = [kind for kind, _ in self.told], []
        return self.n_renewed, told


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def test_a_new_certificate_is_read_once(world):
    assert await world.look() == (0, [])
    make_certificate(world.folder)
    assert await world.look() == (1, ["api.certificate"])
    assert await world.look() == (1, [])


async def test_one_that_can_not_be_used_is_told_once_and_left_alone(world):
    old = (world.folder / "key.pem").read_bytes()
    make_certificate(world.folder)
    new = (world.folder / "key.pem").read_bytes()
    (world.folder / "key.pem").write_bytes(old)
    await world.watch.look()
    assert "key.pem is not the key of" in world.told[0][1]
    assert await world.look() == (0, ["api.certificate-refused"])
    (world.folder / "key.pem").unlink()
    assert await world.look() == (0, ["api.certificate-refused"])
    assert await world.look() == (0, [])
    (world.folder / "key.pem").write_bytes(new)
    assert await world.look() == (1, ["api.certificate"])


async def test_while_nobody_answers_it_is_read_later(world):
    make_certificate(world.folder)
    world.is_up = False
    assert await world.look() == (0, [])
    world.is_up = True
    assert await world.look() == (1, ["api.certificate"])


async def test_it_looks_by_itself_once_a_minute(world):
    watching = asyncio.create_task(world.watch.run())
    await asyncio.sleep(0)
    for n in range(1, 3):
        os.utime(world.files.cert_file, ns=(n, n))
        world.clock.advance(LOOK_S - 1)
        await asyncio.sleep(0)
        assert world.n_renewed == n - 1
        world.clock.advance(1)
        async with asyncio.timeout(20):
            while world.n_renewed < n or not world.clock._sleepers:
                await asyncio.sleep(0.001)
    watching.cancel()
