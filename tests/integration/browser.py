"""Headless Chromium without a network, for tests of the page; whatever it complains of fails the test."""

import contextlib
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium():
    """One browser for the tests of a module."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """One tab, and everything that it asked for and said."""

    def __init__(self, page):
        self.page = page
        self.requests, self.complaints = [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._listen)
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        page.on("response", self._look)

    def _listen(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _look(self, response):
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")


@contextlib.contextmanager
def visit(chromium, address, viewport=DESKTOP, scheme="light"):
    """Open an address; at the end the browser must have asked nobody else and complained of nothing."""
    context = chromium.new_context(viewport=viewport, color_scheme=scheme)
    context.set_default_timeout(30_000)
    seen = Visit(context.new_page())
    try:
        seen.page.goto(address)
        yield seen
        host = address.split("/")[2]
        foreign = [
            url
            for url in seen.requests
            if url.split(":")[0] not in ("data", "blob") and url.split("/")[2] != host
        ]
        assert not foreign
        assert not seen.complaints
        assert any("/_nicegui_ws/" in url for url in seen.requests)
    finally:
        context.close()
