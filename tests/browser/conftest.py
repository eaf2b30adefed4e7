"""A real Chromium: `page` is a fresh tab in it, for tests that look at what a person would see."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from label_world import Site, serving_texts
from playwright.sync_api import Browser, Page, expect, sync_playwright

TIMEOUT = 60_000  # milliseconds; other tests keep the cores busy
expect.set_options(timeout=TIMEOUT)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "no Chromium here: `apt-get install chromium`, or name one in the environment variable CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")  # not longer: while Playwright runs, no other test can have an event loop
def browser(chromium: str) -> Iterator[Browser]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(TIMEOUT)
    yield tab
    context.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A new project of texts, really served."""
    with serving_texts(tmp_path / "project") as served:
        yield served
