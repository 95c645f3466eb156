"""Real browsers for tests: Chromium, axe for accessibility, and a record of the browser's console, which must stay
empty.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, ViewportSize, sync_playwright

AXE: Final = Path(__file__).parents[1] / "vendor" / "axe-4.14.1.min.js"
_AXE_RUN: Final = """axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    resultTypes: ["violations"],  // passed checks are not listed; that took a quarter of the time
}).then((found) => found.violations)"""
QUIET: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
WIDE, NARROW = ViewportSize(width=1440, height=900), ViewportSize(width=390, height=844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium: the one that FRAUDCASE_CHROMIUM names, or the first on PATH."""
    found = os.environ.get("FRAUDCASE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """A person at a browser of their own, with the complaints on its console."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(**{"viewport": WIDE, **options})
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def sign_in(self, name: str, password: str) -> None:
        """Sign in by the form."""
        self.page.goto(f"{self.url}/sign-in")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda url: "/sign-in" not in url)

    def go(self, path: str) -> None:
        """Open a page, and wait until it follows the stream of events."""
        self.page.goto(f"{self.url}{path}")
        self.page.wait_for_selector("#live-state.on")

    def violations(self) -> list[str]:
        """Return the serious and critical findings of axe on the page, as text."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate(_AXE_RUN)
        return [
            f"{each['id']} ({each['impact']}): {node['target']} {node['failureSummary']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]
