"""The OpenAPI document as one plain page: no script, nothing loaded from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font:14px/1.4 ui-monospace,monospace;background:#f4f4f4}pre{padding:1rem;overflow:auto}"
    "section{border-top:1px solid #ccc;margin-top:1.5rem}@media(prefers-color-scheme:dark){"
    "body{background:#111;color:#ddd}code,pre{background:#222}section{border-color:#444}}"
)


def docs_page(document: Mapping[str, object]) -> str:
    """HTML for people; every text of the document is escaped."""
    info = _mapping(document.get("info"))
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{_text(info.get('title'))}</title><style>{_STYLE}</style>",
        f"<h1>{_text(info.get('title'))} {_text(info.get('version'))}</h1><p>{_text(info.get('description'))}</p>",
        "<p>For machines: <a href='openapi.json'>openapi.json</a></p>",
    ]
    for path, operations in _mapping(document.get("paths")).items():
        for method, operation in _mapping(operations).items():
            parts.append(_operation(method, path, _mapping(operation)))
    parts.append("<h2>Schemas</h2>")
    for name, schema in _mapping(_mapping(document.get("components")).get("schemas")).items():
        parts.append(f"<section id='{_text(name)}'><h3>{_text(name)}</h3>{_json(schema)}</section>")
    parts.append("</html>")
    return "".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, object]) -> str:
    answers = "".join(
        f"<li><code>{_text(status)}</code> {_text(_mapping(answer).get('description'))}</li>"
        for status, answer in _mapping(operation.get("responses")).items()
    )
    parameters = operation.get("parameters")
    listed = "".join(
        f"<li><code>{_text(_mapping(one).get('name'))}</code> ({_text(_mapping(one).get('in'))}) "
        f"{_text(_mapping(one).get('description'))}</li>"
        for one in (parameters if isinstance(parameters, list) else [])
    )
    body = _json(operation["requestBody"]) if "requestBody" in operation else ""
    return (
        f"<section><h2><code>{_text(method.upper())} {_text(path)}</code></h2>"
        f"<p>{_text(operation.get('description'))}</p><ul>{listed}</ul>{body}<p>Answers</p><ul>{answers}</ul></section>"
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return escape("" if value is None else str(value))


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"
