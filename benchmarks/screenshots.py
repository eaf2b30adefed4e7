"""Take the README's pictures: the labeling pages and the live page of a project that has run.

    prefloop demo      (stop it after a few iterations; the same for an agent with --run pendulum)
    python benchmarks/screenshots.py prefloop-demo
    python benchmarks/screenshots.py prefloop-pendulum clips
    python benchmarks/screenshots.py NEW_FOLDER quality      (makes a project there, of people who are simulated)

Needs Chromium (`apt-get install chromium`, or its path in CHROMIUM). The pictures go to benchmarks/pictures.
"""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from labeling.records import Annotator, Candidate, Label, Message, Prompt, Slate  # noqa: E402
from labeling.store import Store  # noqa: E402

PICTURES = ROOT / "benchmarks" / "pictures"


def main() -> None:
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["clips"], ["quality"]):
        sys.exit(__doc__)
    shows = sys.argv[2] if len(sys.argv) == 3 else ""
    if shows == "quality":
        simulate_people(Path(sys.argv[1]))
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
            if shows == "clips":
                take_clips(page, address[0])
            elif shows == "quality":
                take_quality(page, address[0])
            else:
                take(page, address[0], Path(sys.argv[1]))
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
        page.set_viewport_size({"width": 1200, "height": 800})
        page.wait_for_timeout(500)
        page.screenshot(path=PICTURES / "strength.png")
        page.set_viewport_size({"width": 1200, "height": 640})
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


def take_quality(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1200, "height": 1000})
    page.goto(address + "/quality")
    page.locator("button[data-annotator]").first.wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=PICTURES / "quality.png", full_page=True)


def simulate_people(project: Path) -> None:
    """Four people and a judge, each right as often as planted, compare answers of four policies over ten days."""
    store, chance = Store(project, create=True), random.Random(0)
    accuracy = {"human:ann": 0.95, "human:bob": 0.85, "human:cid": 0.7, "human:dee": 0.5, "judge:brief": 0.8}
    strength = {"base": 0.0, "aspo-5": 0.6, "grpo-10": 1.0, "ppo-10": 1.4}
    for name in accuracy:
        store.add_annotator(Annotator(name, "human" if name.startswith("human") else "judge"))
    for n in range(160):
        a, b = chance.sample(sorted(strength), 2)
        slate = Slate(Prompt((Message("user", f"Question {n}"),)), (Candidate("one", a), Candidate("another", b)))
        store.add_slates([slate])
        first = chance.random() < 1 / (1 + math.exp(strength[b] - strength[a]))
        if n % 12 == 0:
            store.add_gold(slate.id, (1, 2) if first else (2, 1))
        for who, share in accuracy.items():
            if chance.random() < 0.55:
                ranks = (1, 2) if first == (chance.random() < share) else (2, 1)
                key, order = f"{who}-{n:04d}", chance.choice([(0, 1), (1, 0)])
                label = Label(slate.id, who, "ranked", key, ranks, order=order, seconds=chance.uniform(3, 25))
                store.add_labels([label], {key: time.time() - 5400 * (160 - n)})
    store.revoke("human:dee", "answers at random", "benchmarks/screenshots.py")


if __name__ == "__main__":
    main()
