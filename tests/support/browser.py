"""A page in a real browser: headless Chromium, driven by a program in a frame around the page.

The page's own policy lets no other script run in it, and Chromium's command line can only load,
dump and photograph. So a second page, of the same origin, holds the first in a frame of the wanted
size, clicks and types in it, and writes what it found into its own document, which is dumped.
"""

from __future__ import annotations

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tasks.system.process import clean_env

NAMES = ("chromium", "chromium-browser", "google-chrome")
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="it" src="page.html" width="%(width)s" height="%(height)s" style="border:0"></iframe>
<script>
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const violations = [];
const frame = document.getElementById("it");
frame.addEventListener("load", async () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  page.addEventListener("securitypolicyviolation",
    (event) => violations.push(event.violatedDirective + " " + event.blockedURI));
  const $ = (wanted) => page.querySelector(wanted);
  const $$ = (wanted) => [...page.querySelectorAll(wanted)];
  let found;
  try { await wait(600); found = await (async () => { %(program)s })(); }
  catch (error) { found = {error: String(error)}; }
  if (found) found.violations = violations;
  const text = document.createElement("pre");
  text.id = "found";
  text.hidden = true;
  text.textContent = JSON.stringify(found || {});
  document.body.append(text);
});
</script>"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of one folder that keeps a list of what it was asked for."""

    def log_message(self, *args: object) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]


class Browser:
    """Chromium, with a profile of its own in a folder of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = clean_env()["PATH"]
        self.program = next((name for name in NAMES if shutil.which(name, path=path)), "")
        if not self.program:
            pytest.skip("no Chromium is installed (Debian: package chromium)")

    def run(self, *words: str) -> str:
        """Run it to its end, and return its standard output."""
        done = subprocess.run(
            [
                self.program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-proxy-server",
                "--hide-scrollbars",
                f"--user-data-dir={self.folder}/profile",
                *words,
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        return done.stdout

    def drive(
        self, page: Path, program: str = "return {}", width: int = 1400, height: int = 1000
    ) -> dict[str, Any]:
        """Load a page, run a program beside it, and return what that returns.

        Args:
            page: The file.
            program: The body of an async function; it has $ and $$ (query selectors of the page),
                page, view and wait.
            width: Of the frame, in pixels.
            height: Likewise.

        Returns:
            What the program returned, with "violations" of the page's policy, "asked" (what was
            fetched from the server) and "picture", the file of a screenshot.
        """
        served = self.folder / "served"
        served.mkdir(exist_ok=True)
        shutil.copy(page, served / "page.html")
        frame = FRAME % {"width": width, "height": height, "program": program}
        (served / "frame.html").write_text(frame)
        handler = functools.partial(_Quiet, directory=str(served))
        picture = self.folder / f"page-{width}.png"
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.asked = []  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}/frame.html"
            size = (f"--window-size={max(width, 500)},{height}", "--virtual-time-budget=20000")
            try:
                dumped = self.run(*size, f"--screenshot={picture}", "--dump-dom", url)
                if not picture.exists():  # a Chromium that does one thing at a time
                    self.run(*size, f"--screenshot={picture}", url)
            finally:
                server.shutdown()
            asked = list(server.asked)  # type: ignore[attr-defined]
        match = re.search(r'<pre id="found"[^>]*>(.*?)</pre>', dumped, re.DOTALL)
        assert match, dumped[-2000:]
        found: dict[str, Any] = json.loads(html.unescape(match[1]))
        return {**found, "asked": asked, "picture": picture}
