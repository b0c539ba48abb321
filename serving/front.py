"""Sits between clients and the app's threads, so that a slow client never holds a thread.

An ASGI application around a WSGI one. A request takes a thread once its body has arrived completely; an answer leaves
its thread as a whole. Only an event stream has its own thread for as long as it lasts. Everything that a client can
make this process hold is bounded by bytes, by number or by time (docs/adr/0037-bad-clients.md).

Long, as the states of one request are one class.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from io import BytesIO, RawIOBase
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, RequestTimeout, ServiceUnavailable

from serving.turns import Turns

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

__all__ = ["BODY_WITHIN_S", "Front"]

_LOG = logging.getLogger(__name__)

BODY_WITHIN_S = 10.0
"""A body that is not there by then is answered 408."""

_BODIES_BYTES = 64 << 20  # of bodies on their way, or in a request that waits for a thread, in all
_MOST_WAITING = 1_000  # requests without a thread; above it the answer is 503
_TAKEN_WITHIN_S = 30.0  # events of a stream; a client that takes none for so long is cut off
_COUNTED = "streamforge.body_bytes"
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class _Answer(NamedTuple):
    """Attributes:
    body: what is left of the answer when it is not there as a whole.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | Iterable[bytes]


_OVERLOADED = _Answer(
    503,
    [(b"content-type", b"application/json"), (b"retry-after", b"1")],
    b'{"success":false,"error":"too many requests wait; try again shortly"}',
)

_BROKEN_OFF = _Answer(
    400, [(b"content-type", b"application/json")], b'{"success":false,"error":"the body broke off, or is not framed"}'
)


class _Refused(RawIOBase):
    """The body of a request that is refused for it: whoever reads it gets the reason."""

    def __init__(self, reason: type[HTTPException]):
        self._reason = reason

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:
        raise self._reason


def _refuse(environ: WSGIEnvironment, reason: type[HTTPException]) -> bool:
    """The app answers it, as it does all failures, once it wants the body."""
    environ["CONTENT_LENGTH"], environ["wsgi.input"] = "", _Refused(reason)
    return True


class Front:
    """
    Args:
      app: answers with a list, or says how long its answer is, or streams it.
      threads: requests that are answered at once.
      max_body_bytes: of one request.
      probes: paths that have a thread of their own, and wait for no other request.
      slow: what paths begin with whose requests wait for another system; they have as many threads of their own.
    """

    def __init__(
        self, app: WSGIApplication, threads: int, max_body_bytes: int, probes: Iterable[str], slow: str | None = None
    ):
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._bodies_bytes = 0
        self._bodies = threading.Lock()
        self._turns, self._apart = Turns(threads), Turns(1)
        self._probes, self._slow = frozenset(probes), slow
        self._slow_turns = self._turns if slow is None else Turns(threads)
        self._answered: deque[tuple[asyncio.Future[_Answer], _Answer]] = deque()
        self._is_due = False  # whether the loop is going to look at what is answered
        self._names: dict[bytes, str] = {}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        turns = self._turns_of(scope)
        if turns.waiting >= _MOST_WAITING:
            await _send(send, _OVERLOADED)
            return
        environ = self._environ(scope)
        if scope["method"] not in _WITHOUT_BODY and not await self._take_body(environ, receive):
            await _send(send, _BROKEN_OFF)
            return
        if turns.waiting >= _MOST_WAITING:  # by now
            self._let_go_of_body(environ)
            await _send(send, _OVERLOADED)
            return
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        turns.elsewhere(partial(self._hand_to_loop, environ, answer))
        found = await answer
        if isinstance(found.body, bytes):
            await _send(send, found)
        else:
            await _stream(found, found.body, receive, send)

    def scheduler(self, loop: asyncio.AbstractEventLoop, through_loop: Callable[[Any], None]) -> Callable[[Any], None]:
        """What granian may call for each request, from several threads, instead of what makes a task of the loop.

        A request without a body needs no loop, and is answered on that thread (docs/adr/0037-bad-clients.md).

        Args:
          through_loop: ends in `__call__`.
        """

        def schedule(request: Any) -> None:
            scope = request.scope
            turns = self._turns_of(scope)
            if scope["method"] in _WITHOUT_BODY and turns.waiting < _MOST_WAITING:
                turns.here(partial(self._hand_to_granian, loop, request))
            else:
                through_loop(request)

        return schedule

    def _turns_of(self, scope: dict[str, Any]) -> Turns:
        path = scope["path"]
        if path in self._probes:
            return self._apart
        return self._slow_turns if self._slow is not None and path.startswith(self._slow) else self._turns

    def _environ(self, scope: dict[str, Any]) -> WSGIEnvironment:
        host, port = scope["server"]
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": scope["method"],
            "SCRIPT_NAME": "",
            "PATH_INFO": scope["path"].encode().decode("latin-1"),
            "RAW_URI": scope["raw_path"].decode("utf-8", "replace"),
            "QUERY_STRING": scope["query_string"].decode("latin-1"),
            "SERVER_NAME": host,
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": scope["client"][0],
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scope["scheme"],
            "wsgi.errors": sys.stderr,
            "wsgi.input": BytesIO(),
            "wsgi.input_terminated": True,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        for name, value in scope["headers"]:
            key = self._names.get(name) or self._name(name)
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        return environ

    def _name(self, header: bytes) -> str:
        """What a header is called in WSGI; those that come again and again are kept."""
        name = header.decode("latin-1").upper().replace("-", "_")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        if len(self._names) < 100:
            self._names[header] = key
        return key

    async def _take_body(self, environ: WSGIEnvironment, receive: Receive) -> bool:
        """Puts the body, or why there is none, into the request; False where it broke off: the client left,
        or sends what is no body, which granian tells alike."""
        body, is_taken = bytearray(), False
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                said = environ.get("CONTENT_LENGTH", "")
                is_long, more = said.isdigit() and int(said) > self._max_body_bytes, True
                while more and not is_long:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        return False
                    body += event.get("body", b"")
                    self._count_bodies(len(event.get("body", b"")))
                    more = event.get("more_body", False)
                    is_long = len(body) > self._max_body_bytes
                    if self._bodies_bytes > _BODIES_BYTES:
                        return _refuse(environ, ServiceUnavailable)
            is_taken = not is_long
        except TimeoutError:
            return _refuse(environ, RequestTimeout)
        finally:
            if not is_taken:
                self._count_bodies(-len(body))
        if is_long:
            return _refuse(environ, RequestEntityTooLarge)
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ[_COUNTED] = len(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = BytesIO(body)
        return True

    def _count_bodies(self, more: int) -> None:
        with self._bodies:
            self._bodies_bytes += more

    def _let_go_of_body(self, environ: WSGIEnvironment) -> None:
        if counted := environ.pop(_COUNTED, 0):
            self._count_bodies(-counted)

    def _hand_to_granian(self, loop: asyncio.AbstractEventLoop, request: Any) -> None:
        found, protocol = self._ask(self._environ(request.scope)), request.proto
        if isinstance(found.body, bytes):
            # What these return is there for callers in a loop; the work is done when they return.
            protocol.send({"type": "http.response.start", "status": found.status, "headers": found.headers})
            protocol.send({"type": "http.response.body", "body": found.body})
            request.done()
            return

        async def stream() -> None:
            try:
                await _stream(found, cast("Iterable[bytes]", found.body), protocol.receive, protocol.send)
            finally:
                request.done()

        asyncio.run_coroutine_threadsafe(stream(), loop)

    def _hand_to_loop(self, environ: WSGIEnvironment, answer: asyncio.Future[_Answer]) -> None:
        self._let_go_of_body(environ)
        self._answered.append((answer, self._ask(environ)))
        if not self._is_due:
            self._is_due = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the server with it
                answer.get_loop().call_soon_threadsafe(self._hand_back)

    def _ask(self, environ: WSGIEnvironment) -> _Answer:
        begun: list[tuple[int, list[tuple[bytes, bytes]], bool]] = []

        def begin(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            named = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            begun.append((int(status[:3]), named, any(name == b"content-length" for name, _ in named)))

        try:
            body = self._app(environ, begin)
            status, headers, is_whole = begun[0]
            if isinstance(body, list | tuple):
                return _Answer(status, headers, b"".join(body))
            if is_whole:
                whole = b"".join(body)
                _close(body)
                return _Answer(status, headers, whole)
            return _Answer(status, headers, body)
        except Exception:  # noqa: BLE001 - whoever waits for the answer must get one
            _LOG.exception("the app failed outside of its own handling of failures")
            return _Answer(500, [], b"")

    def _hand_back(self) -> None:
        """On the loop: all answers that have come, which under load are several."""
        self._is_due = False  # first: what comes from here on asks again
        while self._answered:
            answer, found = self._answered.popleft()
            if not answer.done():
                answer.set_result(found)
            elif not isinstance(found.body, bytes):
                _close(found.body)


async def _send(send: Send, answer: _Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _stream(answer: _Answer, frames: Iterable[bytes], receive: Receive, send: Send) -> None:
    """Sends what comes until it ends or the client is gone, or takes nothing any more."""
    loop = asyncio.get_running_loop()
    is_gone = threading.Event()
    ended: asyncio.Future[None] = loop.create_future()

    async def deliver(frame: bytes) -> None:
        async with asyncio.timeout(_TAKEN_WITHIN_S):
            await send({"type": "http.response.body", "body": frame, "more_body": True})

    def pump() -> None:
        try:
            for frame in frames:
                if is_gone.is_set():
                    break
                if frame:
                    asyncio.run_coroutine_threadsafe(deliver(frame), loop).result()
        except Exception as e:  # noqa: BLE001 - it ends this stream and nothing else
            _LOG.info("a stream ended: %r", e)
        finally:
            _close(frames)
            loop.call_soon_threadsafe(ended.set_result, None)

    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    threading.Thread(target=pump, name="stream-of-a-client", daemon=True).start()
    leaving = asyncio.ensure_future(_until_gone(receive))
    await asyncio.wait({ended, leaving}, return_when=asyncio.FIRST_COMPLETED)
    is_gone.set()
    leaving.cancel()
    await ended
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close:
        close()
