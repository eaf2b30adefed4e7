"""Criteria by hand-worked numbers, and degenerate texts that must not win."""

import time
from pathlib import Path

import pytest

from judges.batch import label_slates
from judges.criteria import (
    Avoids,
    Finished,
    Fluent,
    Length,
    Mentions,
    NotRepetitive,
    OnPrompt,
    PlainWords,
    Sentiment,
)
from judges.criteria_judge import CriteriaJudge
from judges.rubric import Rubric, load_rubric, score
from labeling.records import Annotator, Candidate, Message, Prompt, Slate
from labeling.store import Store

RUBRICS = Path(__file__).parents[2] / "data" / "rubrics"
TOMATOES = Prompt((Message("user", "Give me two tips for growing tomatoes on a small balcony."),))


@pytest.mark.parametrize(
    ("criterion", "text", "expected"),
    [
        (Length("length", 4, 6, falloff=4), "one two", 2 / 4),
        (Length("length", 4, 6, falloff=4), "a b c d e", 1),
        (Length("length", 4, 6, falloff=4), "a b c d e f g", 1 - 1 / 4),
        (Length("length", 4, 6, falloff=4), "a " * 20, 0),
        (NotRepetitive("not_repetitive"), "the cat the cat", 2 / 3),  # the-cat, cat-the, the-cat
        (NotRepetitive("not_repetitive"), "Go. Go.", 1),  # one bigram
        (NotRepetitive("not_repetitive", n=1), "Go. Go.", 1 / 2),
        (Sentiment("sentiment", enough=1), "The door is brown.", 1 / 2),  # compound 0
        (Sentiment("sentiment", enough=0.25), "The door is brown.", 1 / 1.25),
        # asked: tip(s) growi tomat small balco; said: water tomat = 1 of 5·0.3 taken up, half of it new
        (OnPrompt("on_prompt"), "Water the tomatoes", 1 / 1.5),
        # the same, but only 1 of 2 words is new where 0.8 are wanted
        (OnPrompt("on_prompt", novelty=0.8), "Water the tomatoes", 1 / 1.5 * 0.5 / 0.8),
        (OnPrompt("on_prompt"), "Give me two tips for growing tomatoes on a small balcony.", 0),
        (OnPrompt("on_prompt"), "It is so.", 0),
        (Finished("finished"), "Water them.", 1),
        (Finished("finished"), 'He said "water them!"', 1),
        (Finished("finished"), "Water them and", 1 / 2),
        (PlainWords("plain_words", letters=5), "use the watering can", 3 / 4),
        (Fluent("fluent", least=0.5, most=0.75), "water the tomatoes now", 1),  # 2 of 4
        (Fluent("fluent", least=0.5, most=0.75), "water tomatoes on balcony", 1 / 4 / 0.5),
        (Fluent("fluent", least=0.5, most=0.75), "the of on a", 0),
        (Avoids("avoids"), "Sorry: as an AI, I cannot.", 0),
        (Avoids("avoids", phrases=("cat",)), "A catalogue.", 1),
        (Mentions("mentions", phrases=("you", "your")), "Mind YOUR step.", 1),
        (Mentions("mentions", phrases=("you",)), "Youth.", 0),
    ],
)
def test_a_criterion(criterion: object, text: str, expected: float) -> None:
    assert criterion.score(TOMATOES, Candidate(text)) == pytest.approx(expected)  # type: ignore[attr-defined]


def test_a_response_that_was_cut_off_is_not_finished() -> None:
    assert Finished("finished").score(TOMATOES, Candidate("Water them and", finished=False)) == 0


def test_tone_follows_the_lexicon() -> None:
    tone = Sentiment("sentiment")
    texts = ("I hate this horrible mess.", "The pot is brown.", "What a lovely, wonderful idea!")
    scores = [tone.score(TOMATOES, Candidate(text)) for text in texts]
    assert scores == sorted(scores)
    assert scores[0] < 0.3 < 0.5 < scores[1] < 0.6
    assert scores[2] == 1


def test_score_is_the_weighted_mean_times_gates_and_substance() -> None:
    criteria = (Finished("finished", weight=3), Length("length", 8, 9, weight=1))
    rubric = Rubric("r", "x", criteria, gates=(NotRepetitive("not_repetitive", n=1),), least_words=8)
    # 4 words of 8: substance ½; finished ½; length ½: mean ½; 3 of 4 words distinct
    assert score(rubric, TOMATOES, Candidate("water and water them")) == pytest.approx(0.5 * 0.5 * 0.75)


GOOD = "Tomatoes love sun, so put the pot where your balcony is brightest, and water it every day."
WARM = "What a lovely idea! Put your tomatoes in a sunny corner of the balcony, and you'll soon enjoy wonderful fruit."
MIDDLING = {
    "no end": "Put the tomatoes in the sun and water them each day so they grow strong and give you fruit",
    "off the prompt": "The capital of France is Paris, and it is known for its museums, its food and its river.",
    "copy": "Give me two tips for growing tomatoes on a small balcony.",
}
DEGENERATE = {
    "empty": "",
    "blank": " \n ",
    "dots": ". . . !",
    "one word": "Yes.",
    "one word over and over": "the " * 20 + ".",
    "keywords": "Tomatoes balcony sun water pot soil light growing tips small great love happy best wonderful.",
    "joy": "Love love love happy happy wonderful great amazing excellent best joy love happy great wonderful.",
    "loop": "Water the tomatoes on the balcony. " * 8,
}


@pytest.mark.parametrize("name", ["concise", "friendly", "helpful"])
def test_shipped_rubrics_put_good_before_middling_before_degenerate(name: str) -> None:
    rubric = load_rubric(name, RUBRICS)

    def of(text: str) -> float:
        return score(rubric, TOMATOES, Candidate(text))

    assert min(of(GOOD), of(WARM)) > 0.9
    assert max(map(of, MIDDLING.values())) < 0.85
    assert max(map(of, DEGENERATE.values())) < 0.25 < min(map(of, MIDDLING.values()))
    assert of("") == of(" \n ") == 0
    cut = "Growing tomatoes on a small balcony is fun. First, choose a pot that is at least"
    assert score(rubric, TOMATOES, Candidate(cut, finished=False)) < min(of(GOOD), of(WARM))


def test_friendly_wants_warmth() -> None:
    rude = Candidate("You are stupid and your tomatoes will die on that ugly balcony, and you will hate it.")
    rubric = load_rubric("friendly", RUBRICS)
    assert score(rubric, TOMATOES, rude) < 0.7 * score(rubric, TOMATOES, Candidate(WARM))


def test_scoring_is_fast_enough_for_a_training_loop() -> None:
    rubric = load_rubric("friendly", RUBRICS)
    score(rubric, TOMATOES, Candidate(WARM))
    started = time.process_time()
    for _ in range(500):
        score(rubric, TOMATOES, Candidate(WARM))
    assert time.process_time() - started < 0.5  # at least 1,000 a second on one core


def length_judge(**settings: float) -> CriteriaJudge:
    rubric = Rubric("r", "x", (Length("length", 10, 10),), least_words=1, **settings)  # type: ignore[arg-type]
    return CriteriaJudge(Annotator("judge:length", "judge"), rubric)


def words(*counts: int) -> Slate:
    return Slate(TOMATOES, tuple(Candidate("word " * n) for n in counts))


def test_the_judge_ranks_by_score_and_ties_what_is_close() -> None:
    judge = length_judge(tie_margin=0.15)  # scores 0.5 0.8 0.9 0.2: 0.8 is within 0.15 of 0.9
    assert judge.compare(words(5, 8, 9, 2)).ranks == (2, 1, 1, 3)
    assert judge.compare(words(8, 9)).ranks == (1, 1)
    assert judge.compare(words(8, 9)).probability == 0.5


def test_a_pair_gets_a_probability() -> None:
    answer = length_judge(temperature=0.2).compare(words(5, 9))
    assert answer.ranks == (2, 1)
    assert answer.probability == pytest.approx(0.1192029)  # σ((0.5 - 0.9) / 0.2) = σ(-2)
    assert length_judge(temperature=1e-9).compare(words(5, 9)).probability == 0


def test_its_labels_reach_the_store_once(store: Store) -> None:
    judge = length_judge()
    assert label_slates(judge, store.slates(), store).outcomes.total() == 6
    assert label_slates(judge, store.slates(), store).outcomes == {}
    assert len(store.labels(annotator="judge:length", history=True)) == 6
