"""What is not there under /api: an answer like any other of ours, and not the page that Gradio has for it."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request
from fastapi.routing import APIRoute

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def add_to(app: FastAPI) -> None:
    """Add the route that takes what no other did; it comes last."""

    @app.api_route("/api/{path:path}", methods=list(METHODS), include_in_schema=False)
    def unknown(request: Request) -> None:
        """Raises 405 with the methods of a route that is there, else 404."""
        path = request.url.path
        routes = (route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema)
        methods = sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})
        if methods:
            raise HTTPException(405, f"{path} takes {' and '.join(methods)}, not {request.method}")
        raise HTTPException(404, f"there is no {path}: /api/docs lists what there is")
