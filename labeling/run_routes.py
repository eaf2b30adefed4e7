"""The route of a run's figures: what the Live page draws, and all that it does not, as one CSV file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse

from labeling.quality_tables import Cell, Table, as_csv
from labeling.run_view import RunView, fold
from labeling.store import Store


def add_to(app: FastAPI, store: Store) -> None:
    """Add the route. It is for owners and reviewers (see `labeling.sign_in`)."""

    @app.get("/api/runs/{run}/csv")
    def run_csv(run: str) -> PlainTextResponse:
        """Every figure of a run, each iteration, as a CSV file of iteration, phase, figure and value."""
        if run not in (runs := store.runs()):
            raise HTTPException(404, f"there is no run {run!r}: there are {', '.join(runs) or 'none yet'}")
        table = run_table(fold(RunView(run), store.events(run)))
        headers = {"content-disposition": 'attachment; filename="run.csv"'}  # a run's name may be no file's
        return PlainTextResponse(as_csv(table), media_type="text/csv", headers=headers)


def run_table(view: RunView) -> Table:
    """The numbers that a run reported, one a row, by iteration; one done again after a resume counts once."""
    phases = {"fit": view.fits, "update": view.updates, "evaluation": view.evaluations, "iteration": view.iterations}
    rows: list[tuple[Cell, ...]] = [
        (iteration, phase, name, value)
        for phase, figures in phases.items()
        for iteration, found in figures.items()
        for name, value in _numbers(found)
    ]
    return Table(("iteration", "phase", "figure", "value"), tuple(sorted(rows, key=lambda row: row[0])))  # type: ignore[arg-type, return-value]


def _numbers(figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, value
