"""Take the README's pictures: the labeling pages and the live page of a project that has run.

    prefloop demo      (stop it after a few iterations; the same for an agent with --run pendulum)
    python benchmarks/screenshots.py prefloop-demo
    python benchmarks/screenshots.py prefloop-pendulum clips

Needs Chromium (`apt-get install chromium`, or its path in CHROMIUM). The pictures go to benchmarks/pictures.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from labeling.store import Store  # noqa: E402

PICTURES = ROOT / "benchmarks" / "pictures"


def main() -> None:
    shows_clips = sys.argv[2:] == ["clips"]
    if len(sys.argv) != 2 and not shows_clips:
        sys.exit(__doc__)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium here: apt-get install chromium, or name it in CHROMIUM")
    PICTURES.mkdir(exist_ok=True)
    serve = [sys.executable, str(ROOT / "app.py"), "serve", "--project", sys.argv[1], "--port", "7999"]
    web = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    try:
        assert web.stdout is not None
        address = re.search(r"http://\S+", web.stdout.readline())
        if address is None:
            sys.exit("the web app did not start")
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
            page = browser.new_page(viewport={"width": 1200, "height": 640})
            take_clips(page, address[0]) if shows_clips else take(page, address[0], Path(sys.argv[1]))
            browser.close()
    finally:
        web.terminate()
        web.wait()


def take(page: Page, address: str, project: Path) -> None:
    page.goto(address)
    page.locator(".card").first.wait_for()
    page.screenshot(path=PICTURES / "pair.png")
    take_strength(page, project)
    page.get_by_role("tab", name="Rankings").click()
    page.locator(".card").nth(2).wait_for()
    page.wait_for_timeout(500)
    for key in "ca":
        page.keyboard.press(key)
    page.screenshot(path=PICTURES / "ranking.png")
    page.set_viewport_size({"width": 1200, "height": 1150})
    page.goto(address + "/live")
    page.get_by_text("Your labels").wait_for()
    page.wait_for_timeout(3000)
    page.screenshot(path=PICTURES / "live.png")


def take_strength(page: Page, project: Path) -> None:
    """The same pair on the scale, with criteria; the project's settings are put back as they were."""
    store = Store(project)
    found = store.settings()
    store.set_settings({"strength": "yes", "criteria": "helpful,honest"})
    try:
        page.reload()
        page.locator(".card").first.wait_for()
        page.keyboard.press("v")
        page.screenshot(path=PICTURES / "strength.png")
    finally:
        store.set_settings({"strength": "yes" if found.strength else "no", "criteria": ",".join(found.criteria)})
    page.reload()
    page.locator(".card").first.wait_for()


def take_clips(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1200, "height": 860})
    page.goto(address)
    page.locator(".card video").nth(1).wait_for()
    page.wait_for_timeout(5000)
    page.screenshot(path=PICTURES / "clips.png")
    page.set_viewport_size({"width": 1200, "height": 1150})
    page.goto(address + "/live")
    page.get_by_text("What to look for").wait_for()
    page.wait_for_timeout(15000)
    page.screenshot(path=PICTURES / "agent.png")


if __name__ == "__main__":
    main()
