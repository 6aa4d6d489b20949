"""A headless Chromium for tests, driven by the Chrome DevTools Protocol over one WebSocket.

Promise: one process group with a profile of its own, ended in `close`; what the page writes to its console, throws
or was forbidden by its policy is kept in `complaints`.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_S = 30.0
REPLY_S = 20.0
END_S = 5.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class Browser:
    """One tab."""

    def __init__(self, profile: Path) -> None:
        assert BINARY, "chromium is not installed"
        command = [BINARY, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        # HOME: Chromium's crash handler and caches stay in the profile too.
        self._process = subprocess.Popen(
            command, stdout=quiet, stderr=quiet, start_new_session=True, env={**os.environ, "HOME": str(profile)}
        )
        self._numbers = itertools.count(1)
        self._socket: ClientConnection | None = None
        self._open_things = contextlib.ExitStack()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        try:
            self._open(profile)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open(self, profile: Path) -> None:
        said = profile / "DevToolsActivePort"
        deadline = time.monotonic() + START_S
        while not (said.exists() and said.read_text().count("\n")):
            assert self._process.poll() is None, "chromium ended"
            assert time.monotonic() < deadline, "chromium did not start"
            time.sleep(0.05)
        port, path = said.read_text().split("\n")[:2]
        address = f"ws://127.0.0.1:{port}{path}"
        self._socket = self._open_things.enter_context(
            connect(address, max_size=None, max_queue=None, ping_interval=None, open_timeout=REPLY_S)
        )
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Run one command and return its result."""
        assert self._socket is not None
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            reply = json.loads(self._socket.recv(REPLY_S))
            if reply.get("id") == number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return reply["result"]
            self._note(reply)

    def _note(self, event: Mapping[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(f"{details['text']} {details.get('exception', {}).get('description', '')}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            entry = params["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression (JSON); a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def visit(self, url: str, typed: str = "") -> None:
        """Open a page, by another spelling of its address if one is given, and wait until it is loaded."""
        self.call("Page.navigate", url="about:blank")
        self.wait(lambda: self._ready("about:blank"), "the page before is left")  # with what it still complains of
        self.complaints.clear()
        self.requests.clear()
        loader = self.call("Page.navigate", url=typed or url)
        assert "errorText" not in loader, loader
        self.wait(lambda: self._ready(url), f"{url} is loaded")

    def _ready(self, url: str) -> bool:
        state = self.evaluate("document.readyState + ' ' + location.href")
        return state == f"complete {url}"

    def wait(self, holds: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
        """Return the first true value of `holds`."""
        deadline = time.monotonic() + within_s
        while not (value := holds()):
            assert time.monotonic() < deadline, self._failure(what, within_s)
            time.sleep(0.05)
        return value

    def _failure(self, what: str, within_s: float) -> str:
        return f"not within {within_s:g} s: {what}\n{self.complaints}\n{self.text('body')}"

    def text(self, selector: str) -> str:
        """Return the text of the first element that matches, as it is shown."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window and the theme."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=theme)

    def press(self, key: str) -> None:
        """Press and release a key."""
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        named = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def close(self) -> None:
        """End the browser and all of its processes."""
        # Asked first: a browser that is killed leaves its children to whoever reaps orphans here, or to nobody.
        with contextlib.suppress(Exception), self._open_things:
            self._session = None
            self.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_S)
