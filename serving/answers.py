"""The envelope: `{"success":true,"data":…,"count":n}` or `{"success":false,"error":"…"}`, for errors too."""

from __future__ import annotations

import math
from typing import Any, cast

import msgspec
from flask import Flask, Response, current_app
from werkzeug.exceptions import HTTPException

from serving.config import Config
from serving.query import InvalidQuery
from serving.store import StoreUnavailable

__all__ = ["answer_errors", "listing", "missing", "one", "unavailable"]

_SENTENCES = {
    404: "there is nothing at this address; /api/v1/info lists what there is",
    405: "this address does not take this method",
    500: "the server failed; the failure is in its log",
}


def listing(rows: list[bytes], next_cursor: str | None) -> Response:
    """Rows that are JSON already are joined, not read."""
    return _json(
        b'{"success":true,"data":[%b],"count":%d,"next_cursor":%b}'
        % (b",".join(rows), len(rows), msgspec.json.encode(next_cursor))
    )


def one(data: Any, count: int = 1) -> Response:
    return _json(msgspec.json.encode({"success": True, "data": data, "count": count}))


def missing(sentence: str) -> Response:
    return _failure(404, sentence)


def unavailable(sentence: str) -> Response:
    response = _failure(503, sentence)
    config = cast(Config, current_app.extensions["streamforge.config"])
    response.headers["Retry-After"] = str(math.ceil(config.retry_after_s))
    return response


def answer_errors(app: Flask) -> None:
    """Every error leaves in the envelope, whoever raised it."""

    @app.errorhandler(InvalidQuery)
    def _invalid(error: InvalidQuery) -> Response:
        return _failure(400, str(error))

    @app.errorhandler(StoreUnavailable)
    def _unavailable(_: StoreUnavailable) -> Response:
        return unavailable("the online store does not answer; try again shortly")

    # A failure nobody foresaw arrives here too, as InternalServerError, after Flask has logged it.
    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        status = error.code or 500
        refusal = _failure(status, _SENTENCES.get(status, error.name.lower()))
        allow = error.get_response().headers.get("Allow")
        if allow:
            refusal.headers["Allow"] = allow
        return refusal


def _failure(status: int, sentence: str) -> Response:
    return _json(msgspec.json.encode({"success": False, "error": sentence}), status)


def _json(body: bytes, status: int = 200) -> Response:
    response = Response(body, status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
