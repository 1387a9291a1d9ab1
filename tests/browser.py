"""A headless Chromium, asked over its DevTools pipe: what a page shows to a person, shadow trees included."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SETTINGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
SHOWN_TEXT = """(() => {
  const texts = [];
  const visit = node => {
    if (node.nodeType === Node.TEXT_NODE && node.parentElement?.checkVisibility()) texts.push(node.textContent.trim());
    if (node.shadowRoot) visit(node.shadowRoot);
    if (!["SCRIPT", "STYLE"].includes(node.nodeName)) node.childNodes.forEach(visit);
  };
  visit(document.body);
  return texts.filter(text => text).join("\\n");
})()"""


class Page:
    """A page in the browser."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._number, self._session = to_browser, from_browser, 0, ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:  # answers come in order, between events
            answer = b""
            while not answer.endswith(b"\0"):
                answer += os.read(self._from, 1)
            content = json.loads(answer[:-1])
            if content.get("id") == self._number:
                assert "error" not in content, content
                return content["result"]

    def text(self) -> str:
        """All that it shows at this moment."""
        return str(self._ask("Runtime.evaluate", expression=SHOWN_TEXT)["result"].get("value", ""))

    def show(self, address: str, *words: str) -> str:
        """The text of the page at `address`, as soon as all `words` are in it; it is loaded anew every ten seconds."""
        for _ in range(9):
            for place in ("about:blank", address):
                self._ask("Page.navigate", url=place)
            end = time.monotonic() + 10
            while time.monotonic() < end:
                text = self.text()
                if all(word in text for word in words):
                    return text
                time.sleep(0.2)
        raise AssertionError(f"not shown: {[word for word in words if word not in text]} in\n{text}")


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with one empty page."""
    assert BROWSER is not None
    browser_reads, to_browser = os.pipe()
    from_browser, browser_writes = os.pipe()

    def connect() -> None:  # the browser reads descriptor 3 and writes descriptor 4
        for source, target in ((os.dup(browser_reads), 3), (os.dup(browser_writes), 4)):
            os.dup2(source, target)

    command = [BROWSER, *SETTINGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "--window-size=1400,1000"]
    process = subprocess.Popen(command, close_fds=False, preexec_fn=connect, stderr=subprocess.DEVNULL)  # noqa: PLW1509
    try:
        yield Page(to_browser, from_browser)
    finally:
        process.kill()
        process.wait()
        for descriptor in (browser_reads, to_browser, from_browser, browser_writes):
            os.close(descriptor)
