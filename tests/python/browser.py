"""Chromium without a screen, driven by its own driver (https://www.w3.org/TR/webdriver2/): what a person sees of a page."""

import base64
import json
import shutil
import urllib.error
import urllib.request

from faults import DEADLINE
from support import Process

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # The name that the protocol gives to a reference to an element.
# It runs as root in containers, has no screen, and asks nobody for updates.
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1400,1000",
    "--force-prefers-reduced-motion",  # Nothing fades in: what is there is seen at once.
    "--remote-debugging-pipe",  # So that it ends when the driver does, however that ends.
]


def program(name):
    """Where Debian's packages `chromium` and `chromium-driver` put it."""
    path = shutil.which(name)
    assert path, f"{name} is not installed: `scripts/setup.sh flower`"
    return path


def driver():
    """The driver, and its port. It takes one that is free in IPv6, which another program may have in IPv4: then it ends."""
    for _ in range(10):
        process = Process([program("chromedriver"), "--port=0"])
        said = process.output.wait_for(r"started successfully on port (\d+)|port not available", timeout=DEADLINE)
        if said.group(1):
            return process, said.group(1)
        process.kill()
    raise AssertionError(process.output.text())


class Browser:
    """One window."""

    def __init__(self, folder):
        self._driver, port = driver()
        self._url = f"http://127.0.0.1:{port}/session"
        options = {
            "binary": program("chromium"),
            "args": [*ARGUMENTS, f"--user-data-dir={folder / 'chromium'}"],
        }
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._ask("POST", "", capabilities={"alwaysMatch": capabilities})
        self._url += "/" + session["sessionId"]

    def _ask(self, method, path, **parameters):
        body = json.dumps(parameters).encode() if method == "POST" else None
        request = urllib.request.Request(self._url + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path} {parameters}: {error.read().decode()[:2000]}") from None

    def open(self, url):
        """Goes to the page, and waits until it is loaded."""
        self._ask("POST", "/url", url=url)

    def script(self, body, *arguments):
        """What the function with this body returns."""
        return self._ask("POST", "/execute/sync", script=body, args=arguments)

    def wait_for(self, expression):
        """The value of the expression in JavaScript, as soon as it has one that is true."""
        look = f"""
            const done = arguments[0];
            (function look() {{ const value = {expression}; value ? done(value) : setTimeout(look, 10); }})();
        """
        return self._ask("POST", "/execute/async", script=look, args=[])

    def text(self):
        return self.script("return document.body.innerText")

    def _element(self, selector):
        return self._ask("POST", "/element", using="css selector", value=selector)[ELEMENT]

    def click(self, selector):
        """Clicks where a person would: what is hidden or covered cannot be."""
        # A page may have scrolled it under the bar that stays at the top.
        self.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})", selector)
        self._ask("POST", f"/element/{self._element(selector)}/click")

    def type(self, selector, text):
        """In the place of what stands there."""
        element = self._element(selector)
        self._ask("POST", f"/element/{element}/clear")
        self._ask("POST", f"/element/{element}/value", text=text)

    def screenshot(self, path):
        """Of the whole page, not only of what the window shows of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = self._ask(
            "POST", "/goog/cdp/execute", cmd="Page.captureScreenshot", params={"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self):
        """What went wrong in the pages' scripts since it was last asked: not that something was refused."""
        logged = self._ask("POST", "/se/log", type="browser")
        return [entry for entry in logged if entry["level"] == "SEVERE" and entry["source"] != "network"]

    def close(self):
        self._ask("DELETE", "")
        self._driver.stop()
