"""The envelope: `{"success":true,"data":…,"count":n}` or `{"success":false,"error":"…"}`, for errors too."""

from __future__ import annotations

import math
import zlib
from typing import Any, cast

import msgspec
from backports import zstd
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from serving.app import Whole
from serving.config import Config
from serving.openapi import JSON, MAX_BODY_BYTES, WrongContentType
from serving.query import InvalidQuery, cursor_text
from serving.store import Page, StoreUnavailable

__all__ = [
    "LINES",
    "answer_errors",
    "compressed",
    "features_of_many",
    "forbidden",
    "lines",
    "listing",
    "missing",
    "one",
    "one_ready",
    "too_large",
    "too_many",
    "unauthorized",
    "unavailable",
    "unfit",
]

LINES = "application/x-ndjson"
_SENTENCES = {
    404: "there is nothing at this address; see /docs",
    405: "this address does not support this method",
    413: f"the body is larger than {MAX_BODY_BYTES >> 20} MiB",
    500: "the server failed; its log has the details",
}
# Below this a compressed answer is no fewer packets. Above it, 100 alerts (30 kB) become 5 kB in 40 µs of zstd, or 7 kB
# in 60 µs of gzip; higher levels take three times as long for a tenth less.
_COMPRESS_FROM_BYTES = 1024
_LEVEL = 1


def listing(page: Page) -> Response:
    """Rows that are JSON already are joined, not read."""
    next_cursor = None if page.end is None else cursor_text(page.end)
    return compressed(
        _json(
            b'{"success":true,"data":[%b],"count":%d,"next_cursor":%b}'
            % (b",".join(page.rows), len(page.rows), msgspec.json.encode(next_cursor))
        )
    )


def lines(page: Page) -> Response:
    """Rows as a line each; where the next page goes on is in a header."""
    response = Whole(b"".join(b"%b\n" % row for row in page.rows), content_type=LINES)
    response.headers["Cache-Control"] = "no-store"
    if page.end is not None:
        response.headers["X-Next-Cursor"] = cursor_text(page.end)
    return compressed(response)


def features_of_many(asked: list[str], known: list[bytes | None]) -> Response:
    """Those known in the order asked; the others by id."""
    rows = [row for row in known if row is not None]
    unknown = [user_id for user_id, row in zip(asked, known, strict=True) if row is None]
    return compressed(
        _json(
            b'{"success":true,"data":[%b],"count":%d,"missing":%b}'
            % (b",".join(rows), len(rows), msgspec.json.encode(unknown))
        )
    )


def one(data: Any, count: int = 1, **more: Any) -> Response:
    return _json(msgspec.json.encode({"success": True, "data": data, "count": count, **more}))


def one_ready(data: bytes) -> Response:
    """As `one`, of what is JSON already."""
    return _json(b'{"success":true,"data":%b,"count":1}' % data)


def missing(sentence: str) -> Response:
    return _failure(404, sentence)


def unauthorized(sentence: str) -> Response:
    response = _failure(401, sentence)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def forbidden(sentence: str) -> Response:
    return _failure(403, sentence)


def unfit(sentence: str) -> Response:
    return _failure(422, sentence)


def too_large(sentence: str) -> Response:
    return _failure(413, sentence)


def too_many(sentence: str, retry_after_s: int) -> Response:
    response = _failure(429, sentence)
    response.headers["Retry-After"] = str(retry_after_s)
    return response


def unavailable(sentence: str, **more: Any) -> Response:
    """
    Args:
      more: of the answer, beside the sentence.
    """
    response = _json(msgspec.json.encode({"success": False, "error": sentence, **more}), 503)
    config = cast(Config, current_app.extensions["streamforge.config"])
    response.headers["Retry-After"] = str(math.ceil(config.retry_after_s))
    return response


def compressed(response: Response) -> Response:
    """The response as the client takes it: with zstd, gzip or as it is."""
    response.headers["Vary"] = "Accept-Encoding"
    body = response.get_data()
    if len(body) < _COMPRESS_FROM_BYTES or "Accept-Encoding" not in request.headers:
        return response
    accepted = request.accept_encodings
    if accepted.quality("zstd") > 0:
        response.set_data(zstd.compress(body, _LEVEL))
        response.headers["Content-Encoding"] = "zstd"
    elif accepted.quality("gzip") > 0:
        gzip = zlib.compressobj(_LEVEL, wbits=31)
        response.set_data(gzip.compress(body) + gzip.flush())
        response.headers["Content-Encoding"] = "gzip"
    return response


def answer_errors(app: Flask) -> None:
    """Every error leaves in the envelope, whoever raised it."""

    @app.errorhandler(InvalidQuery)
    def _invalid(error: InvalidQuery) -> Response:
        return _failure(400, str(error))

    @app.errorhandler(WrongContentType)
    def _wrong_content_type(error: WrongContentType) -> Response:
        return _failure(415, f"the body must be JSON, sent with Content-Type: {' or '.join(error.accepted)}")

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
    response = Whole(body, status, content_type=JSON)
    response.headers["Cache-Control"] = "no-store"
    return response
