"""The Flask app, which counts, times and logs every request.

Flask without features that this API does not use: sessions, hosts and subdomains, async views
(docs/adr/0015-serving-speed.md says what that saves).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flask import Flask, Request, Response
from flask.globals import request_ctx
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter, UnicodeConverter

from serving.access_log import AccessLog
from serving.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["App", "Whole"]

_UNMATCHED = "unmatched"
_KEPT = re.compile(r"%(2[Ff]|25)")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class _Decoded(UnicodeConverter):
    """A route's variable: an id may be any text, so a slash or percent sign in it is encoded until here."""

    def to_python(self, value: str) -> str:
        return unquote(value, errors="surrogateescape")


class _NoSessions(SessionInterface):
    def __init__(self) -> None:
        self._none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002
        return self._none


class App(Flask):
    """
    Args:
      access_log: None for none. A client's X-Request-ID comes back in any case; with a log, who has none gets one.
    """

    session_interface = _NoSessions()

    def __init__(self, metrics: Metrics, access_log: AccessLog | None):
        super().__init__("serving", static_folder=None)
        self.url_map.merge_slashes = False  # a path with // is another path, not a redirect
        self.url_map.converters = self.url_map.converters | {"default": _Decoded}
        self._metrics = metrics
        self._access_log = access_log

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """By path and method only. So no rule may end in a slash: the redirect to it would name no host."""
        if request is None:
            return None
        return MapAdapter(self.url_map, "", "/", "", "http", _path(request), request.method)

    def full_dispatch_request(self) -> Response:
        """Here and not in before_request, after_request and teardown functions, which take three times as long."""
        started = perf_counter()
        request = request_ctx.request
        route = request.url_rule.rule if request.url_rule else _UNMATCHED
        in_flight = self._metrics.in_flight(request.method, route)
        in_flight.inc()
        try:
            response = super().full_dispatch_request()
        except Exception as e:  # noqa: BLE001 - what Flask does with it next
            response = self.handle_exception(e)
        finally:
            in_flight.dec()
        seconds = perf_counter() - started
        self._metrics.answered(request.method, route, response.status_code, seconds)
        request_id = request.environ.get("HTTP_X_REQUEST_ID")
        if request_id is not None or self._access_log:
            if not (request_id and _REQUEST_ID.fullmatch(request_id)):
                request_id = uuid.uuid4().hex
            response.headers["X-Request-ID"] = request_id
            if self._access_log:
                self._access_log.tell(request_id, request.method, route, request.path, response.status_code, seconds)
        return response


def _path(request: Request) -> str:
    """Decoded but for slashes and percent signs that were encoded: WSGI's own path has lost the difference."""
    raw = request.environ.get("RAW_URI")
    if raw is None:  # a server that does not say
        return request.path.replace("%", "%25")
    path: str = raw.partition("?")[0]
    return unquote(_KEPT.sub(r"%25\1", path), errors="surrogateescape") if "%" in path else path


class Whole(Response):
    """A response with a body that is there as a whole, as bytes.

    granian sends a list at once; of Flask's own responses, which are iterators, it fetches piece by piece.
    """

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return [] if environ["REQUEST_METHOD"] == "HEAD" else self.response  # type: ignore[return-value]
