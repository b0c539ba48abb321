"""The page at /: the newest alerts, kept up to date by polling. Everything it loads comes from here."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, request

__all__ = ["pages"]

pages = Blueprint("dashboard", __name__)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_FILES = {
    file.name: (file.read_bytes(), _TYPES[file.suffix])
    for file in Path(__file__).parent.iterdir()
    if file.suffix in _TYPES
}


@pages.get("/")
def page() -> Response:
    """The newest alerts, live."""
    return _file("page.html")


@pages.get("/page.css")
def styles() -> Response:
    """The page's styles."""
    return _file("page.css")


@pages.get("/page.js")
def script() -> Response:
    """The page's script."""
    return _file("page.js")


def _file(name: str) -> Response:
    body, content_type = _FILES[name]
    response = Response(body, content_type=content_type)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response
