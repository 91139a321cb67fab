"""A headless Chromium, driven over its pipe: no library is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

#: Moves the ends of the two pipes to 3 and 4, where Chromium looks for them.
_TRAMPOLINE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """One tab; `log` has what the console and the network said."""

    def __init__(self, chromium, profile):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [
            chromium, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions", "--disable-background-networking", "--no-first-run", "--hide-scrollbars",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TRAMPOLINE, str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._n, self._session, self.log, self._shown = b"", 0, None, [], None
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        """Send a command and return its result; events that come before it go to `log`."""
        self._n += 1
        message = {"id": self._n, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 60
        while True:
            answer = self._next(until - time.monotonic())
            if answer.get("id") == self._n:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _next(self, seconds):
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(seconds, 0))[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise ConnectionError("Chromium has ended")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)

    def _note(self, event):
        name, params = event.get("method", ""), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.log.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.log.append(f"console: {params['args']}")
        elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.log.append(f"log: {params['entry']['text']}")
        elif name == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("data:", "file:", "about:", "blob:")):
                self.log.append(f"network: {url}")

    def js(self, expression):
        """Return the value of an expression; a promise is awaited."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def open(self, path, *, width=1280, height=1000, dark=False, ready=True, fresh=False):
        """Open a page from disk and wait for its viewer; it stays as it is where it is open already."""
        if not fresh and self._shown == (path, width, height, dark, ready):
            self.send("Emulation.setEmulatedMedia", media="", features=[])
            return
        self._shown = (path, width, height, dark, ready)
        self.log.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=Path(path).resolve().as_uri())
        wanted = "document.getElementById('viewer')?.dataset.ready === '1'" if ready else "true"
        until = time.monotonic() + 30
        while not self.js(f"document.readyState === 'complete' && location.protocol === 'file:' && {wanted}"):
            if time.monotonic() > until:
                raise TimeoutError(f"the page does not become ready; {self.log}")
            time.sleep(0.03)

    def click(self, selector, x=0.5, y=0.5):
        """Press the mouse at a share of the width and height of an element."""
        box = self.js(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        at = {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def drag(self, selector, places, *, shift=False, alt=False):
        """Drag the mouse from the first point over the others; points are fractions of the width and height."""
        box = self.js(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        at = [{"x": box[0] + x * box[2], "y": box[1] + y * box[3]} for x, y in places]
        how = {"button": "left", "modifiers": (8 if shift else 0) + (1 if alt else 0)}
        self.send("Input.dispatchMouseEvent", type="mousePressed", clickCount=1, **at[0], **how)
        for place in at[1:]:
            self.send("Input.dispatchMouseEvent", type="mouseMoved", buttons=1, **place, **how)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", clickCount=1, **at[-1], **how)

    def wheel(self, selector, by):
        """Turn the mouse wheel over the middle of an element."""
        box = self.js(
            f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
            "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        self.send("Input.dispatchMouseEvent", type="mouseWheel", x=box[0], y=box[1], deltaX=0, deltaY=by)

    def key(self, name, *, shift=False):
        """Press a key."""
        code = {"PageUp": 33, "PageDown": 34, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
                "ArrowDown": 40, "Tab": 9, "Escape": 27}[name]  # fmt: skip
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code,
                      modifiers=8 if shift else 0)  # fmt: skip

    def screenshot(self, path, *, full=True):
        """Write a PNG of the page."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def pdf(self, path):
        """Print the page to a file."""
        data = self.send("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        """End the browser."""
        os.close(self._write)
        os.close(self._read)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium; skip where none is installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("CHROMIUM") or next((p for p in map(shutil.which, names) if p), None)
    if found is None:
        pytest.skip("no Chromium found (apt-get install chromium, or set CHROMIUM to its path)")
    tab = Browser(found, tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()
