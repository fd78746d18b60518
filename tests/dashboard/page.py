"""The dashboard in a real Chromium: Debian's, driven by its own driver, without a window.

A `Page` is what a person has: it goes to a page, sees text, clicks what has a name, and waits until something is to be
seen. It fails with what is on the page instead.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, DRIVER = shutil.which(os.environ.get("MESH_BROWSER") or "chromium"), shutil.which("chromedriver")
MISSING = " and ".join(
    f"no {name}" for name, found in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if found is None
)
"""Why there can be no browser; empty: there can."""
if MISSING:
    MISSING += " on PATH: .ci/browser installs them"
AXE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "mesh-ci" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
)  # fmt: skip

PATIENCE = 40.0
"""Seconds for what takes one or two on an idle machine."""

LOOK_SECONDS = 0.1

FLAGS = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--window-size=1440,900",
)  # fmt: skip

DESKTOP, PHONE = (1440, 900, False), (360, 740, True)

Found = TypeVar("Found")


class Page:
    """One tab. `clicks` counts what a person did with the mouse since the last `open`."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self.clicks = 0

    def open(self, api: Mapping[str, str], place: str = "#/") -> None:
        """The dashboard of the node whose api.json this is, as if it had not been open before."""
        self.driver.get("about:blank")
        self.driver.get(f"{api['url']}/#token={api['token']}")
        self.until(lambda: self.here("main[data-page]") and not self.sees("Asking the node"), "the page is filled")
        self.go(place)
        self.clicks = 0

    def go(self, place: str) -> None:
        self.driver.execute_script("location.hash = arguments[0]", place)

    def look(self, theme: str = "light", size: tuple[int, int, bool] = DESKTOP) -> None:
        width, height, mobile = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def text(self, selector: str = "body") -> str:
        return "\n".join(element.text for element in self.driver.find_elements(By.CSS_SELECTOR, selector))

    def sees(self, text: str, selector: str = "body") -> bool:
        return text in self.text(selector)

    def here(self, selector: str) -> bool:
        return bool(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def find(self, selector: str, text: str = "") -> WebElement:
        """The first such element that has the text and is shown."""

        def found() -> WebElement | None:
            elements = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return next((each for each in elements if text in each.text and each.is_displayed()), None)

        return self.until(found, f"{selector} with {text!r}")

    def click(self, selector: str, text: str = "") -> None:
        def clicked() -> bool:
            self.find(selector, text).click()
            return True

        self.until(clicked, f"{selector} with {text!r} is clicked")
        self.clicks += 1

    def press(self, keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(keys)

    def until(self, condition: Callable[[], Found | None], what: str) -> Found:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if found := condition():
                    return found
            except (StaleElementReferenceException, WebDriverException) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{what}: {error.msg}") from None
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}\n{self.text()[:3000]}"
            time.sleep(LOOK_SECONDS)

    def until_sees(self, text: str, selector: str = "body") -> None:
        self.until(lambda: self.sees(text, selector), f"{selector} shows {text!r}")

    def complaints(self) -> list[str]:
        """What the browser wrote to its console since the last look."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def faults(self) -> list[str]:
        """What axe finds serious or critical on the page as it is now."""
        if not self.driver.execute_script("return Boolean(window.axe)"):
            self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
        found: list[dict[str, Any]] = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(r => done(r.violations.map("
            "v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map(n => n.html)}))))"
        )
        return [
            f"{fault['id']} ({fault['help']}): {'; '.join(html[:200] for html in fault['nodes'])}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    def overhang(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.driver.execute_script("return document.documentElement.scrollWidth - innerWidth"))


@contextmanager
def browser() -> Iterator[Page]:
    """With a profile of its own, which goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="mesh-browser-"))
    try:
        with _driven(folder) as driver:
            yield Page(driver)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _driven(folder: Path) -> Iterator[Chrome]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


__all__ = ["AXE", "CHROMIUM", "DESKTOP", "DRIVER", "MISSING", "PHONE", "Keys", "Page", "browser"]
