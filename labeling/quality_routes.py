"""The routes about people's work: the figures of the Quality page as JSON and CSV, and revoking an annotator."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from labeling.account_routes import account_of
from labeling.label_requests import STORABLE
from labeling.quality_tables import FIGURES, Table, as_csv
from labeling.records import UserError
from labeling.store import Store


class Revocation(BaseModel):
    """Why an annotator's labels are to count for nothing."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=500), STORABLE]


def add_to(app: FastAPI, store: Store) -> None:
    """Add the routes. Figures are for owners and reviewers, revoking is for owners (see `labeling.sign_in`)."""

    @app.get("/api/quality/{figure}")
    def quality(figure: str) -> dict[str, Any]:
        """One of the Quality page's figures as rows of named values."""
        table = _figure(store, figure)
        return {"rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}

    @app.get("/api/quality/{figure}/csv")
    def quality_csv(figure: str) -> PlainTextResponse:
        """The same as a CSV file."""
        headers = {"content-disposition": f'attachment; filename="{figure}.csv"'}
        return PlainTextResponse(as_csv(_figure(store, figure)), media_type="text/csv", headers=headers)

    @app.post("/api/annotators/{name:path}/revoke")
    def revoke(name: str, why: Revocation, request: Request) -> dict[str, int]:
        """Let an annotator's labels count for nothing from now on; says how many stood."""
        account = account_of(request)
        return {"labels": _or_409(lambda: store.revoke(name, why.reason, account.name if account else "local"))}

    @app.post("/api/annotators/{name:path}/restore")
    def restore(name: str) -> dict[str, int]:
        """Let a revoked annotator's labels count again; says how many."""
        return {"labels": _or_409(lambda: store.restore(name))}


def _figure(store: Store, figure: str) -> Table:
    if figure not in FIGURES:
        raise HTTPException(404, f"there is no figure {figure!r}: there are {', '.join(FIGURES)}")
    return store.figure(figure)


def _or_409(change: Any) -> int:
    try:
        return int(change())
    except UserError as error:
        raise HTTPException(409, str(error)) from error
