"""What is said when a request is refused: {"error": one line}, which names the culprit and what to do.

A reply to a page whose person is not the one who signed in also says who that is, in "signed_in".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from labeling.records import InvalidRecord, UserError
from labeling.store import Conflict


def add_to(app: FastAPI) -> None:
    """Let the app answer every error in this way."""
    app.add_exception_handler(RequestValidationError, _explain_invalid)
    app.add_exception_handler(StarletteHTTPException, _explain_http)
    app.add_exception_handler(UserError, _explain_user_error)


class SomebodyElse(HTTPException):
    """The page labels as somebody else than who signed in, as happens when another tab of the browser signs in."""

    def __init__(self, signed_in: str, named: str) -> None:
        line = f"you are signed in as {signed_in}: nobody labels for somebody else, so sign in as {named} again"
        super().__init__(403, line)
        self.signed_in = signed_in


def complaint(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a line.

    It repeats no value, which may be a password, but where a few words are allowed.
    """
    where = ".".join(map(str, error["loc"][1:]))  # the first is "body", "query" or "path"
    kind, said = error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return "the body is no JSON: send an object with the header `content-type: application/json`"
    if kind == "missing":
        wrong = f"{where or 'the body'} is missing"
    elif kind == "extra_forbidden":
        wrong = f"{where}: there is no such field here"
    elif kind == "literal_error":
        wrong = f"{where}: {str(error['input'])[:40]!r} is none of {error['ctx']['expected']}"
    else:
        wrong = f"{where}: {said}" if where else said
    return f"{wrong} (/api/docs says what each field may be)"


def _error(status: int, line: str, **more: str) -> JSONResponse:
    return JSONResponse({"error": " ".join(line.split())[:300], **more}, status)


async def _explain_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _error(422, complaint(error.errors()[0]))


async def _explain_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    # Told apart from other refusals, so that the page keeps an answer until its person is back.
    more = {"signed_in": error.signed_in} if isinstance(error, SomebodyElse) else {}
    return _error(error.status_code, str(error.detail), **more)


async def _explain_user_error(_: Request, error: Exception) -> JSONResponse:
    status = 409 if isinstance(error, Conflict) else 422 if isinstance(error, InvalidRecord) else 503
    return _error(status, str(error))
