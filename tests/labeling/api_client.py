"""The routes of a project, asked from this process, and the store's leases one by one."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from labeling.service import api
from labeling.store import Lease, Store


def client_of(store: Store) -> TestClient:
    """A client that sees errors as replies, as a browser does."""
    return TestClient(api(store), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def post(client: TestClient, route: str, status: int = 200, **body: Any) -> dict[str, Any]:
    """POST to /api/route, expecting that status."""
    reply = client.post(f"/api/{route}", json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def lease(
    store: Store, who: str, k: tuple[int, int] = (2, 2), seconds: float = 60.0, ahead: int = 0, queue: Any = "new"
) -> Lease | None:
    """What this person is to answer after so many others; new ones are shown in the order in which they were made."""
    leases = store.leases(who, range, k, seconds, ahead, queue)
    return leases[ahead] if ahead < len(leases) else None
