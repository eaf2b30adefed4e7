"""What axe-core finds on a page that keeps people out: missing names, lost focus, too little contrast."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

axe = pytest.importorskip("axe_playwright_python.sync_playwright")


def barriers(page: Page) -> list[str]:
    """Each serious or critical violation as: rule, and where."""
    found: list[dict[str, Any]] = axe.Axe().run(page).response["violations"]
    return [
        f"{violation['impact']}: {violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def none_in_either_colours(page: Page) -> None:
    """Fail on a barrier in the dark or the light colours; the page stays in the light ones."""
    backgrounds = set()
    for colours in ("dark", "light"):
        page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
        page.wait_for_timeout(400)  # what fades in has its colours
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert barriers(page) == []
    assert len(backgrounds) == 2
