"""The API as a page to read: each route with its fields, made from the same schema that programs get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEAD = """<h1>API</h1>
<p>Requests and replies are JSON; an error is <code>{"error": one line}</code>. Where people sign in, a program sends
<code>Authorization: Bearer TOKEN</code>; an owner gets the token from <code>POST /api/tokens</code>.
<a href="/api/openapi.json">openapi.json</a> says the same to programs.</p>
<pre>curl -X POST ADDRESS/api/lease -H 'authorization: Bearer TOKEN' -H 'content-type: application/json' -d '{}'
curl -X POST ADDRESS/api/submit -H 'authorization: Bearer TOKEN' -H 'content-type: application/json' \\
  -d '{"slate": ID, "outcome": "ranked", "ranks": [1, 2], "client_key": "a-key-of-your-own-1"}'</pre>"""


def api_page(schema: Mapping[str, Any]) -> str:
    """An OpenAPI document as HTML."""
    routes = [_route(schema, f"{method.upper()} {path}", said) for path, method, said in _operations(schema)]
    return "\n".join([HEAD, *routes])


def _operations(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, said in methods.items():
            yield path, method, said


def _route(schema: Mapping[str, Any], name: str, said: Mapping[str, Any]) -> str:
    body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    model = _resolved(schema, body)
    needed = {*model.get("required", []), *(p["name"] for p in said.get("parameters", []) if p.get("required"))}
    fields = {p["name"]: p["schema"] for p in said.get("parameters", [])} | model.get("properties", {})
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{escape(kind(_resolved(schema, what)))}</td>"
        f"<td>{'needed' if field in needed else _default(what)}</td></tr>"
        for field, what in fields.items()
    )
    told = "".join(f"<p>{escape(text)}</p>" for text in (said.get("description"), model.get("description")) if text)
    return f"<h2><code>{escape(name)}</code></h2>{told}{f'<table>{rows}</table>' if rows else ''}"


def _resolved(schema: Mapping[str, Any], what: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference leads to, or the thing itself."""
    name = what.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = schema["components"]["schemas"][name] if name else what
    return found


def _default(what: Mapping[str, Any]) -> str:
    value = what.get("default")
    return "" if value in (None, "", [], {}) else f"else {escape(str(value))}"


def kind(what: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in what:
        return " or ".join(kind(one) for one in what["anyOf"])
    if "enum" in what:
        return " or ".join(f'"{one}"' for one in what["enum"])
    if what.get("type") == "array":
        return f"list of {kind(what.get('items', {}))}"
    bounds = [f"{sign} {what[key]:g}" for key, sign in BOUNDS.items() if key in what]
    texts = [f"like {what['pattern']}"] if "pattern" in what else []
    return ", ".join([what.get("type", "anything"), *bounds, *texts])


BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "minLength": "length ≥",
    "maxLength": "length ≤",
}
