"""The routes of a project, asked from this process."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from labeling.service import api
from labeling.store import Store


def client_of(store: Store) -> TestClient:
    """A client that sees errors as replies, as a browser does."""
    return TestClient(api(store), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def post(client: TestClient, route: str, status: int = 200, **body: Any) -> dict[str, Any]:
    """POST to /api/route, expecting that status."""
    reply = client.post(f"/api/{route}", json=body)
    assert reply.status_code == status, reply.text
    return reply.json()
