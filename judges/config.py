"""A judge is a TOML file: its name, its rubric, its weight and, behind an endpoint, where its model answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from judges.answer import Judge
from judges.budget import Budget, Caps, Price
from judges.canaries import CanaryRules
from judges.criteria import STRICT
from judges.criteria_judge import CriteriaJudge
from judges.endpoint import Endpoint
from judges.endpoint_judge import EndpointJudge
from judges.local_model import LocalJudge, ReplyModel
from judges.pictures import Draw
from judges.prices import load_prices
from judges.questions import WORDING
from judges.rubric import load_rubric, score
from judges.toml_data import read_toml, validated
from labeling.records import Annotator, Candidate, Message, Prompt, UserError, content_id

KINDS = ("criteria", "endpoint", "local")
REASONED_REPLY = 768  # tokens of a reply that reasons first, where the file does not say
KEPT_CLIPS = 128  # clips whose pictures are kept in memory, some 100 kB each: one is asked about several times
BASE_URL_ENV = "OPENAI_BASE_URL"
SECTIONS = {"budget", "price", "canaries"}
ENDPOINT_KEYS = {field.name for field in fields(Endpoint)} - {"api_key"} | {"api_key_env"} | SECTIONS
LOCAL_KEYS = {"model", "canaries"}
OWN_KEYS: dict[str, set[str]] = {"criteria": set(), "endpoint": ENDPOINT_KEYS, "local": LOCAL_KEYS}


@dataclass(frozen=True, config=STRICT)
class JudgeFile:
    """The keys that every judge has. weight and flip_rate: see `labeling.records.Annotator`."""

    kind: str
    name: Annotated[str, Field(pattern=r"^[\w.-]{1,60}$")]
    rubric: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    flip_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True, config=STRICT)
class LocalModel:
    """The keys of a judge that is a model in this process. model: the embedded one, a hub id or a directory."""

    model: Annotated[str, Field(min_length=1)]


def load_judge(
    path: Path,
    shipped: Path,
    frames: Draw | None = None,
    open_model: Callable[[str], ReplyModel] | None = None,
) -> Judge:
    """Load a judge from a TOML file; `shipped` is the folder of shipped data: rubrics and prices.

    frames: draws clips (id and count to PNGs), for judges that see; what was drawn of late is kept. open_model: loads
    a model by name, for judges of kind "local", when it is first needed. A rubric given as a path is looked for beside
    the judge's file. Raises UserError, one line that names file, key and cure, also when the environment variable of
    the key is missing.
    """
    data = read_toml(path)
    kind = data.get("kind")
    if kind not in KINDS:
        raise UserError(f"{path}: kind = {kind!r}: must be one of {', '.join(KINDS)}")
    asked = {key: data.pop(key) for key in OWN_KEYS[kind] & data.keys()}
    file = validated(JudgeFile, data, path, others=OWN_KEYS[kind])
    rubric = load_rubric(
        str(path.parent / file.rubric) if file.rubric.endswith((".toml", ".md")) else file.rubric, shipped / "rubrics"
    )
    if kind == "criteria":
        score(rubric, Prompt((Message("user", "?"),)), Candidate(""))  # says so when the rubric has no criteria
        return CriteriaJudge(_annotator(file, "criteria", rubric.fingerprint), rubric)
    canaries = validated(CanaryRules, asked.pop("canaries", {}), path, section="canaries")
    if kind == "local":
        name = validated(LocalModel, asked, path).model
        if open_model is None:
            raise UserError(f"{path}: no model can be loaded here: use a judge of another kind")
        annotator = _annotator(file, name, content_id("judge", rubric.fingerprint, WORDING, "local"))
        return LocalJudge(annotator, rubric, name, str(path), open_model, canaries)
    key, key_source = _api_key(asked.pop("api_key_env", ""), path)
    budget = validated(Budget, asked.pop("budget", {}), path, section="budget")
    price = validated(Price, asked.pop("price"), path, section="price") if "price" in asked else None
    if rubric.reasoning:
        asked.setdefault("max_tokens", REASONED_REPLY)
    endpoint = validated(Endpoint, {"base_url": _base_url(asked, path), **asked, "api_key": key}, path)
    if endpoint.frames and frames is None:
        raise UserError(f"{path}: frames = {endpoint.frames}, but there are no clips to draw here: set frames = 0")
    sees = [endpoint.frames] if endpoint.frames else []
    version = content_id("judge", rubric.fingerprint, WORDING, *sees)
    draw = lru_cache(KEPT_CLIPS)(frames) if frames else None
    listed = load_prices(shipped / "prices.toml")
    found = price or listed.price(endpoint.base_url, endpoint.model)
    annotator = _annotator(file, endpoint.model, version)
    judge = EndpointJudge(annotator, rubric, endpoint, str(path), key_source, draw, price=found, canary_rules=canaries)
    return replace(judge, price_date=listed.date if found and not price else None).within(Caps(budget))


def _annotator(file: JudgeFile, model: str, version: str) -> Annotator:
    """A judge with another model, rubric, wording or number of pictures is another annotator."""
    return Annotator(f"judge:{file.name}:{model}:{version[-8:]}", "judge", file.weight, file.flip_rate)


def _base_url(asked: dict[str, Any], path: Path) -> str:
    url = asked.pop("base_url", None) or os.environ.get(BASE_URL_ENV)
    if not url:
        raise UserError(f"{path}: base_url is missing: add it, or set the environment variable {BASE_URL_ENV}")
    return url


def _api_key(variable: object, path: Path) -> tuple[str, str]:
    """The key and where it comes from; no variable means a server that needs none."""
    if not isinstance(variable, str):
        raise UserError(f"{path}: api_key_env = {variable!r}: must be the name of an environment variable")
    if not variable:
        return "", "api_key_env names no environment variable"
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"{path}: the environment variable {variable} (api_key_env) is not set: put the API key in it")
    odd = next((c for c in key if not "!" <= c <= "~"), "")
    if odd:  # what a header cannot hold: a typographic dash, or a line break, from a copied text
        raise UserError(
            f"{path}: the API key in the environment variable {variable} (api_key_env) holds {odd!a}, which no key "
            "does: copy it again from where it was issued"
        )
    return key, f"the environment variable {variable}"
