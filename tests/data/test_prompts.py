"""The shipped prompts: enough of them, all different, and held-out ones that training never comes near."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from labeling.exchange import import_file
from labeling.records import Prompt
from labeling.store import Store

SHIPPED = Path(__file__).parents[2] / "data" / "prompts.jsonl"
TOO_ALIKE = 0.6


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def alike(one: set[str], other: set[str]) -> float:
    """Jaccard: shared words over all words."""
    return len(one & other) / len(one | other)


def text_of(prompt: Prompt) -> str:
    return " ".join(message.content for message in prompt.messages)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    store = Store(tmp_path_factory.mktemp("shipped"), create=True)
    import_file(store, SHIPPED)
    return store.prompts()


def test_they_import_whole_and_are_enough(prompts: list[Prompt]) -> None:
    assert len(prompts) == len(SHIPPED.read_text().splitlines()) >= 200
    assert sum(p.split == "heldout" for p in prompts) >= 60
    assert sum(len(p.messages) > 1 for p in prompts) >= 20


def test_every_category_is_in_both_splits(prompts: list[Prompt]) -> None:
    held_out, train = ({p.category for p in prompts if p.split == split} for split in ("heldout", "train"))
    assert held_out == train
    assert len(train) >= 12
    assert "" not in train


def test_none_is_a_near_copy_of_another(prompts: list[Prompt]) -> None:
    bags = [(text_of(p), words(text_of(p))) for p in prompts]
    copies = [(a, b) for (a, these), (b, those) in combinations(bags, 2) if alike(these, those) > TOO_ALIKE]
    assert copies == []


def test_each_is_short_plain_and_says_its_split_itself(prompts: list[Prompt]) -> None:
    for prompt in prompts:
        text = text_of(prompt)
        assert 6 <= len(text.split()) <= 40, text
        assert text.isascii(), text
    assert all("split" in json.loads(line) for line in SHIPPED.read_text().splitlines())


def test_the_measure_of_likeness_can_tell() -> None:
    near = alike(words("How do I boil an egg for breakfast?"), words("How do I boil an egg at breakfast?"))
    assert near == 7 / 9  # shared: how do i boil an egg breakfast; apart: for, at
