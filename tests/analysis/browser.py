"""A real browser without a window, over its DevTools protocol: opens a page, and tells what it
did and how it looks."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from tornado.websocket import websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60


def find_browser():
    """The path of a browser of the Chromium family; None if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def devtools(browser):
    """Start the browser with a profile of its own; give the address of its one tab."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]
        options += [
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
        ]
        options += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            [browser, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield _tab(Path(profile) / "DevToolsActivePort", process)
        finally:
            process.terminate()
            process.wait(SECONDS)


def _tab(port_file, process):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        if port_file.is_file() and port_file.read_text().count("\n"):
            port = port_file.read_text().split("\n")[0]
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/json/list", timeout=SECONDS
            ) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return tabs[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise RuntimeError(f"the browser did not start: exit status {process.poll()}")


class Tab:
    """One tab: what it is told (`call`), and what it tells (`events`)."""

    def __init__(self, connection):
        self.connection, self.events, self.n_calls = connection, [], 0

    async def call(self, method, **parameters):
        self.n_calls += 1
        await self.connection.write_message(
            json.dumps({"id": self.n_calls, "method": method, "params": parameters})
        )
        return await self._until(lambda message: message.get("id") == self.n_calls)

    async def event(self, method):
        for message in self.events:
            if message["method"] == method:
                return message
        return await self._until(lambda message: message.get("method") == method)

    async def value(self, expression):
        """What an expression of the page's own language gives."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer["result"], answer
        return answer["result"]["result"].get("value")

    def told(self, method):
        return [message["params"] for message in self.events if message["method"] == method]

    async def _until(self, wanted):
        while True:
            text = await asyncio.wait_for(self.connection.read_message(), SECONDS)
            assert text is not None, "the browser closed the connection"
            message = json.loads(text)
            if "method" in message:
                self.events.append(message)
            if wanted(message):
                assert "error" not in message, message
                return message


def visit(browser, page, look):
    """Open a page, and give what `look`, a coroutine function of a tab, gives."""

    async def go(address):
        connection = await websocket_connect(address, max_message_size=2**28)
        tab = Tab(connection)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.call(f"{domain}.enable")
        await tab.call("Page.navigate", url=Path(page).absolute().as_uri())
        await tab.event("Page.loadEventFired")
        found = await look(tab)
        connection.close()
        return found

    with devtools(browser) as address:
        return asyncio.run(go(address))
