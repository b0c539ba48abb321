"""The page at /: alerts and what a team does with them, revenue, sessions and the pipelines, live.

All that it loads is in this folder.
The page uses the API as any client does: there is nothing here but files. `vendor/` holds uPlot 1.6.32 as published on
npm, unchanged, with its licence (MIT).
"""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, abort, current_app, request

__all__ = ["pages"]

pages = Blueprint("dashboard", __name__)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {
    file.name: (file.read_bytes(), _TYPES[file.suffix])
    for file in Path(__file__).parent.rglob("*")
    if file.suffix in _TYPES
}
_METRICS = b'    <a href="/metrics">Metrics</a>\n'


@pages.get("/")
def page() -> Response:
    """The dashboard, with a link to /metrics only where this port has them."""
    body, content_type = _FILES["page.html"]
    if "/metrics" not in {rule.rule for rule in current_app.url_map.iter_rules()}:
        body = body.replace(_METRICS, b"")
    return _file(body, content_type)


@pages.get("/dashboard/<name>")
def part(name: str) -> Response:
    """What the dashboard loads: scripts, styles, its icon."""
    if name not in _FILES:
        abort(404)
    return _file(*_FILES[name])


def _file(body: bytes, content_type: str) -> Response:
    response = Response(body, content_type=content_type)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response
