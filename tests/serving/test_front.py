"""The front apart from granian, and what it needs of granian."""

from __future__ import annotations

import asyncio
import threading

import pytest
from granian import _futures
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from serving import front
from serving.front import Front

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/a/ü",
    "raw_path": b"/a/%C3%BC",
    "query_string": b"x=1",
    "scheme": "http",
    "server": ("127.0.0.1", "8090"),
    "client": ("127.0.0.2", "4711"),
    "headers": [(b"host", b"a"), (b"x-twice", b"1"), (b"x-twice", b"2"), (b"content-type", b"text/plain")],
}


def app(environ, start_response):
    """Says what it was asked."""
    request = Request(environ)
    try:
        body = request.get_data().decode()
    except HTTPException as e:
        return e(environ, start_response)
    told = [environ["RAW_URI"], request.path, request.query_string.decode(), request.remote_addr, body]
    told += [request.headers["X-Twice"], request.content_type]
    return Response("|".join(told))(environ, start_response)


def ask(events, *, app=app, front_=None, **scope):
    return asyncio.run(asking(events, front_ or Front(app, 2, 100, ["/live"]), **scope))


async def asking(events, under_test, **scope):
    """Status and body; `events` are what the client sends, None for nothing more."""
    sent, left = [], list(events)

    async def receive():
        event = left.pop(0)
        if event is None:
            await asyncio.Event().wait()
        return event

    async def send(event):
        sent.append(event)

    async with asyncio.timeout(30):
        await under_test(SCOPE | scope, receive, send)
    if not sent:
        return None
    return sent[0]["status"], b"".join(event.get("body", b"") for event in sent[1:])


def body(data, more=False):
    return {"type": "http.request", "body": data, "more_body": more}


def test_granian_still_has_what_the_scheduler_takes_the_place_of():
    assert callable(_futures._cbsched_aioschedule)


def test_the_app_is_asked_what_the_client_asked():
    status, told = ask([body(b"on", more=True), body(b"e")])
    assert (status, told.decode()) == (200, "/a/%C3%BC|/a/ü|x=1|127.0.0.2|one|1,2|text/plain")


@pytest.mark.parametrize("headers", [[(b"content-length", b"101")], [(b"transfer-encoding", b"chunked")]])
def test_a_body_that_is_too_long_is_refused_when_that_is_known(headers):
    assert ask([body(b"x" * 60, more=True), body(b"x" * 60, more=True), None], headers=headers)[0] == 413


def test_a_body_that_does_not_come_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(front, "BODY_WITHIN_S", 0.05)
    assert ask([body(b"x", more=True), None])[0] == 408


def test_a_body_that_breaks_off_is_refused_and_the_app_not_asked():
    def never(*_):
        raise AssertionError

    assert ask([body(b"x", more=True), {"type": "http.disconnect"}], app=never)[0] == 400


def test_bodies_take_no_more_than_so_much_together_and_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(front, "_BODIES_BYTES", 80)
    under_test = Front(app, 2, 100, [])
    for _ in range(3):
        assert ask([body(b"x" * 81, more=True), None], front_=under_test)[0] == 503
        assert ask([body(b"x" * 79)], front_=under_test)[0] == 200


def held(app):
    """The app, whose answers wait until they may go on; and what says so, and that one waits."""
    go_on, taken = threading.Event(), threading.Semaphore(0)

    def slow(environ, start_response):
        if environ["PATH_INFO"] != "/live":
            taken.release()
            assert go_on.wait(30)
        return app(environ, start_response)

    return slow, go_on, taken


def test_bodies_of_requests_that_wait_for_a_thread_count_until_they_have_one(monkeypatch):
    monkeypatch.setattr(front, "_BODIES_BYTES", 250)
    slow, go_on, taken = held(app)

    async def many():
        under_test = Front(slow, 1, 100, [])
        tasks = [asyncio.create_task(asking([body(b"x" * 100)], under_test))]
        await asyncio.to_thread(taken.acquire, timeout=30)
        tasks += [asyncio.create_task(asking([body(b"x" * 100)], under_test)) for _ in range(3)]
        await asyncio.sleep(0.1)  # three wait, of which two have their bodies
        go_on.set()
        assert [status for status, _ in await asyncio.gather(*tasks)] == [200, 200, 200, 503]
        assert under_test._bodies_bytes == 0

    asyncio.run(many())


def test_a_request_that_had_to_wait_for_its_body_does_not_pass_those_that_wait(monkeypatch):
    monkeypatch.setattr(front, "_MOST_WAITING", 1)
    slow, go_on, taken = held(app)

    async def many():
        under_test = Front(slow, 1, 100, [])
        arrives = asyncio.Event()
        sent = []

        async def receive():
            await arrives.wait()
            return body(b"x")

        async def send(event):
            sent.append(event)

        late = asyncio.create_task(under_test(SCOPE, receive, send))
        await asyncio.sleep(0)
        others = [asyncio.create_task(asking([], under_test, method="GET")) for _ in range(2)]
        await asyncio.to_thread(taken.acquire, timeout=30)
        await asyncio.sleep(0)
        arrives.set()
        await late
        go_on.set()
        assert sent[0]["status"] == 503
        assert [status for status, _ in await asyncio.gather(*others)] == [200, 200]
        assert under_test._bodies_bytes == 0

    asyncio.run(many())


def test_too_many_requests_that_wait_are_refused_and_probes_are_answered(monkeypatch):
    monkeypatch.setattr(front, "_MOST_WAITING", 3)
    slow, go_on, taken = held(Response("ok"))

    async def many():
        under_test = Front(slow, 1, 100, ["/live"])
        first = asyncio.create_task(asking([], under_test, method="GET"))
        await asyncio.to_thread(taken.acquire, timeout=30)
        waiting = [first, *(asyncio.create_task(asking([], under_test, method="GET")) for _ in range(3))]
        await asyncio.sleep(0)  # they are in the queue
        status, told = await asking([], under_test, method="GET")
        assert (status, b'"success":false' in told) == (503, True)
        assert await asking([], under_test, method="GET", path="/live", raw_path=b"/live") == (200, b"ok")
        go_on.set()
        assert await asyncio.gather(*waiting) == [(200, b"ok")] * 4

    asyncio.run(many())


def test_an_app_that_fails_is_a_500_and_its_thread_goes_on():
    answers = iter([ZeroDivisionError, None])

    def broken(environ, start_response):
        if next(answers):
            raise ZeroDivisionError
        return Response("ok")(environ, start_response)

    under_test = Front(broken, 1, 100, [])
    assert ask([], front_=under_test, method="GET") == (500, b"")
    assert ask([], front_=under_test, method="GET") == (200, b"ok")
