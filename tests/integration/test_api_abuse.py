"""Clients that behave badly, and questions of any size: the public port lives on, memory is bounded, intake flows."""

import contextlib
import json
import resource
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.abuses import ask_and_take_nothing, idle_connections, send_gigabyte
from tests.integration.api_client import ask
from tests.integration.test_api_process import children
from tests.integration.test_cli import RunningPlant

from headrace.core.clock import NS, VirtualClock
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.runtime.pipe import Pipe

PLANT = """
version = 1
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[adapters.pushed]
protocol = "http"
path = "{site}/{area}/{line}/{host}/{field}"
other_tags = "drop"
"""
T0 = 1_772_431_200 * NS
N_DEVICES, WIDTH, N_FRAMES = 100, 20, 1_500
N_SAMPLES = N_DEVICES * WIDTH * N_FRAMES
RSS_MAX_BYTES = (
    1_000 << 20
)  # 800 MB were measured after all heavy queries; a body of 1 GB held whole passes it
HELD_MAX_SHARE = 0.6  # of a large answer: one that is held whole passes it
PAUSE_MAX_S = 2.0


def fill(folder):
    """A store with three million samples of 2,000 sensors."""
    clock = VirtualClock(T0)
    pipe = Pipe(folder, [], clock)
    layout = Layout("u16", tuple(Column(f"signal{n:02d}", scale=0.1) for n in range(WIDTH)))
    slots = pipe.directory.define_many(
        [f"leon/paint/line{n % 4}/oven{n:03d}" for n in range(N_DEVICES)], layout
    )
    per_batch = 50
    for first in range(0, N_FRAMES, per_batch):
        frames = first + np.repeat(np.arange(per_batch), N_DEVICES)
        ts = T0 + frames * NS
        values = (
            np.tile(np.arange(N_DEVICES * WIDTH).reshape(-1, WIDTH), (per_batch, 1)) + frames[:, None]
        ) % 4_000
        clock.set_ns(int(ts[-1]))
        pipe.offer(
            FrameBatch.dense(
                np.tile(slots, per_batch), ts, values.astype(np.uint16), arrival_ns=clock.now_ns(), origin="t"
            )
        )
    pipe.tick()
    pipe.drain()
    pipe.close()


class Feeder:
    """Pushes a line every few milliseconds and remembers the longest wait for an answer."""

    def __init__(self, address, path="/api/v2/write?bucket=pushed", key=""):
        self._address, self._path, self._ends = address, path, threading.Event()
        self._headers = {"Content-Type": "text/plain", **({"Authorization": f"Bearer {key}"} if key else {})}
        self.n, self.longest_s, self.failures = 0, 0.0, []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join(30)

    def _run(self):
        while not self._ends.wait(0.02):
            body = f"fed,site=leon,area=fed,line=l1,host=h value={self.n} {T0 + self.n * 10**6}\n".encode()
            begun = time.monotonic()
            answer = ask(self._address, self._path, body=body, headers=self._headers)
            self.longest_s = max(self.longest_s, time.monotonic() - begun)
            self.n += 1
            if answer.status != 204:
                self.failures.append(answer.text)


class EngineFeeder(Feeder):
    """Pushes to the engine's own port, past the api process: what it waits for is intake alone."""

    def __init__(self, folder):
        announced = json.loads((folder / "store" / "running.json").read_text())
        super().__init__(announced["control"], "/api/v1/receive/pushed", announced["key"])


class Served:
    def __init__(self, plant, folder):
        self.plant, self.folder, self.address = plant, folder, plant.address(folder)
        self.host, self.port = urlsplit(self.address).hostname, urlsplit(self.address).port
        assert ask(self.address, "/livez").status == 200
        (self.child,) = children(plant.process.pid)

    def rss_bytes(self):
        pages = int(Path(f"/proc/{self.child}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=30)

    def is_well(self):
        """The same process as before, and quick."""
        begun = time.monotonic()
        assert ask(self.address, "/livez").text == "ok\n"
        assert time.monotonic() - begun < PAUSE_MAX_S
        assert children(self.plant.process.pid) == [self.child]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    (folder / "plant.toml").write_text(PLANT)
    fill(folder / "store")
    with RunningPlant(folder) as plant:
        yield Served(plant, folder)


def stream(served, pattern, accept, look):
    """Rows and bytes of an answer that is read as it comes; `look` is called with every megabyte or so."""
    path = f"/api/v1/query?pattern={pattern}&from=2026-03-01&to=2026-03-04"
    request = urllib.request.Request(served.address + path, headers={"Accept": accept})
    n_rows = n_bytes = 0
    with urllib.request.urlopen(request, timeout=60) as answer:
        if accept == "text/csv":
            n_rows = -1
            while part := answer.read(1 << 20):
                n_rows, n_bytes = n_rows + part.count(b"\n"), n_bytes + len(part)
                look()
        else:
            for batch in pa.ipc.open_stream(answer):
                n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + batch.nbytes
                look()
    return n_rows, n_bytes


@pytest.mark.parametrize("accept", ["application/vnd.apache.arrow.stream", "text/csv"])
def test_a_query_over_everything_is_streamed_while_intake_flows(served, accept):
    # Most of the plant first: libraries, kernels and caches are in memory before what is measured.
    stream(served, "leon/paint/{line0,line1,line2}/**", accept, lambda: None)
    before_bytes, seen, begun = served.rss_bytes(), [], time.monotonic()
    with Feeder(served.address) as feeder:
        n_rows, n_bytes = stream(served, "leon/paint/**", accept, lambda: seen.append(served.rss_bytes()))
        took_s = time.monotonic() - begun
    assert n_rows == N_SAMPLES
    assert max(seen) - before_bytes < HELD_MAX_SHARE * n_bytes
    assert max(seen) < RSS_MAX_BYTES
    assert feeder.failures == []
    assert feeder.n > 2 * took_s  # it was fed all the while
    assert feeder.longest_s < PAUSE_MAX_S
    served.is_well()


def test_many_heavy_queries_at_once_do_not_stall_the_engine(served):
    span = "from=2026-03-01&to=2026-03-04"
    heavy = [
        f"/api/v1/query?pattern=leon/paint/**&{span}&agg=mean,twa&every=1s&limit=100000",
        f"/api/v1/query?pattern=leon/paint/**&{span}&limit=200000",
        f"/prometheus/api/v1/query_range?query=sum(signal01)&start={T0 // NS}&end={T0 // NS + N_FRAMES}&step=1",
        f'/prometheus/api/v1/query_range?query=avg_over_time({{area="paint"}}[1m])&start={T0 // NS}'
        f"&end={T0 // NS + N_FRAMES}&step=10",
    ]
    with EngineFeeder(served.folder) as feeder, ThreadPoolExecutor(8) as clients:
        answers = clients.map(lambda path: ask(served.address, path, timeout_s=120), heavy * 2)
        statuses = [answer.status for answer in answers]
    assert set(statuses) <= {200, 422, 429}
    assert 200 in statuses
    assert feeder.failures == []
    assert feeder.n > 20  # it was fed all the while
    assert feeder.longest_s < PAUSE_MAX_S
    served.is_well()


def test_clients_that_vanish_or_take_nothing_cost_nothing(served):
    path = "/api/v1/query?pattern=leon/paint/**&from=2026-03-01&to=2026-03-04"
    with contextlib.ExitStack() as stack, Feeder(served.address) as feeder:
        for n in range(30):
            client = stack.enter_context(served.connect())
            ask_and_take_nothing(client, path, then_vanish=bool(n % 2))
        refused = ask(served.address, path, headers={"Accept": "text/csv"})
        assert refused.status in (200, 429)
        if refused.status == 429:
            assert refused.headers["Retry-After"] == "5"
            assert refused.json()["code"] == "overloaded"
        served.is_well()
    assert feeder.failures == []
    assert served.rss_bytes() < RSS_MAX_BYTES


def test_ten_thousand_idle_connections(served):
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(idle_connections((served.host, served.port), 10_000))
        feeder = stack.enter_context(Feeder(served.address))
        served.is_well()
        # Those that ask nothing are closed after a while.
        idle[0].settimeout(40)
        assert idle[0].recv(1) == b""
        served.is_well()
    assert feeder.failures == []
    assert feeder.longest_s < PAUSE_MAX_S


def test_a_head_that_never_ends_is_cut_off(served):
    with served.connect() as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        with contextlib.suppress(OSError):
            for _ in range(60):
                client.sendall(b"X-More: 1\r\n")
                time.sleep(0.5)
        client.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert client.recv(1) == b""
    served.is_well()


@pytest.mark.parametrize("how", ["announced", "chunked"])
def test_a_body_of_a_gigabyte_is_refused(served, how):
    status = send_gigabyte((served.host, served.port), "/api/v2/write?bucket=pushed", how)
    assert status in (413, None)
    assert served.rss_bytes() < RSS_MAX_BYTES
    served.is_well()


def test_patterns_and_expressions_that_explode_do_not(served):
    for pattern in ("**/" * 40 + "x", "**/" + "*s" * 60, "{a,b}" * 300, "*" * 4_000):
        assert ask(served.address, f"/api/v1/sensors?pattern={pattern}").status in (200, 400)
    for regex in ("(a%2B)%2B%24", "(s|si|sig|sign)*x", "." * 2_000):
        found = ask(served.address, f'/prometheus/api/v1/query?query=signal01{{device=~"{regex}"}}')
        assert found.status in (200, 400, 422)
    assert ask(served.address, "/prometheus/api/v1/query?query=" + "(" * 3_000).status == 400
    assert ask(served.address, "/prometheus/api/v1/query?query=" + "1%2B" * 4_000 + "1").status == 400
    served.is_well()
