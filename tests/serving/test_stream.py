"""Server-sent events: the fan-out on a real Valkey, with what the jobs' writer writes, and the server as a process."""

import contextlib
import http.client
import json
import signal
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import features
from schemas.store_keys import KEYS
from serving import Config
from serving.store import Store, StoreUnavailable
from serving.stream import Streams, TooManyStreams, Wanted
from tests.build import MINUTE, T0, alert, minute
from tests.live import eventually
from tests.server import running
from tests.store import write

ALL = frozenset({"alert", "revenue"})
ALERTS = frozenset({"alert"})


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def streams_on(url, most=10, clock=time.monotonic):
    config = Config(redis_url=url, redis_timeout_s=0.3, retry_after_s=0.05)
    return Streams(Store(config, lambda: None), most, retry_s=0.05, poll_s=0.02, clock=clock)


@pytest.fixture
def streams(valkey, db):
    made = streams_on(valkey.redis_url)
    yield made
    made.close()


def events(chunks, until):
    """What a browser makes of them: (id, kind, data), an id kept until the next; until a condition on the events."""
    found, last_id, text = [], None, b""
    deadline = time.monotonic() + 20
    for chunk in chunks:
        text += chunk
        *blocks, text = text.split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
            last_id = fields.get(b"id", last_id)
            if b"data" in fields:
                found.append((last_id.decode() if last_id else None, fields[b"event"].decode(), fields[b"data"]))
        if until(found):
            return found
        assert time.monotonic() < deadline, f"only {found}"
    return found


def first(chunks, count):
    return events(chunks, lambda found: len(found) >= count)[:count]


def event_id(text):
    at, number = text.split("-")
    return int(at), int(number)


def test_alerts_are_told_as_they_get_in_also_those_of_late_orders(streams, valkey):
    write(valkey.redis_url, [alert(alert_id="before")])
    stream = streams.open(Wanted(ALERTS))
    new, late = alert(alert_id="new", event_time=T0 + 9), alert(alert_id="late", event_time=T0 - 9)
    write(valkey.redis_url, [new])
    write(valkey.redis_url, [late, new])
    found = first(stream, 2)
    assert [(kind, data) for _, kind, data in found] == [
        ("alert", features.alert_json(new)),
        ("alert", features.alert_json(late)),
    ]
    assert event_id(found[0][0]) < event_id(found[1][0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(
    times=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    cuts=st.sets(st.integers(0, 12)),
    restarts=st.sets(st.integers(0, 12)),
)
def test_whoever_is_cut_off_and_comes_back_misses_nothing_and_hears_nothing_twice(valkey, db, times, cuts, restarts):
    """Also when the server behind it is another one by then."""
    db.flushall()
    streams = streams_on(valkey.redis_url)
    heard, after = [], None
    stream = streams.open(Wanted(ALERTS))
    begin = next(stream)
    after = event_id(begin.split(b"\n")[0].removeprefix(b"id: ").decode())
    for i, at in enumerate(times):
        write(valkey.redis_url, [alert(alert_id=f"a-{i}", event_time=T0 + at)])
        if i in restarts:
            streams.close()
            streams = streams_on(valkey.redis_url)
        if i in cuts or i in restarts:
            stream.close()
            stream = streams.open(Wanted(ALERTS, after=after))
        if i % 2:
            [(text, _, data)] = first(stream, 1)
            heard.append(data)
            after = event_id(text)
            stream.close()  # what else it had is lost with the connection
            stream = streams.open(Wanted(ALERTS, after=after))
    left = len(times) - len(heard)
    heard += [data for _, _, data in first(stream, left)] if left else []
    streams.close()
    assert heard == [entry[b"alert"] for _, entry in db.xrange(KEYS.alert_log)]
    assert len(heard) == len(times)


def test_a_stream_tells_only_what_was_asked_for(streams, valkey):
    wanted = alert(alert_id="wanted", user_id="ada", alert_type="A")
    of_ada, of_a = streams.open(Wanted(ALERTS, user_id="ada")), streams.open(Wanted(ALERTS, alert_type="A"))
    both, revenue = streams.open(Wanted(ALERTS, "A", "ada")), streams.open(Wanted(frozenset({"revenue"})))
    write(valkey.redis_url, [alert(alert_id="1", user_id="ada", alert_type="B")])
    write(valkey.redis_url, [alert(alert_id="2", user_id="bob", alert_type="A"), wanted])
    write(valkey.redis_url, [minute(T0 // MINUTE * MINUTE)])
    assert [json.loads(data)["alert_id"] for _, _, data in first(of_ada, 2)] == ["1", "wanted"]
    assert [json.loads(data)["alert_id"] for _, _, data in first(of_a, 2)] == ["2", "wanted"]
    assert [data for _, _, data in first(both, 1)] == [features.alert_json(wanted)]
    assert [kind for _, kind, _ in first(revenue, 1)] == ["revenue"]


def test_the_open_minute_comes_at_once_and_when_it_changes(streams, valkey):
    start = T0 // MINUTE * MINUTE
    write(valkey.redis_url, [minute(start, version=1, gmv_minor=100)])
    stream = streams.open(Wanted(ALL))
    [(_, kind, data)] = first(stream, 1)
    assert (kind, json.loads(data)["total_gmv"]) == ("revenue", 1.0)
    write(valkey.redis_url, [minute(start, version=2, gmv_minor=250)])
    [(_, _, data)] = first(stream, 1)
    assert json.loads(data)["total_gmv"] == 2.5


def test_a_heartbeat_comes_when_there_was_nothing_for_a_while_and_not_before(valkey, db):
    clock = Clock()
    streams = streams_on(valkey.redis_url, clock=clock)
    stream = streams.open(Wanted(ALL))
    assert b"retry: " in next(stream)
    clock.now = 14.9
    assert next(stream) == b""
    clock.now = 15.0
    assert next(stream).startswith(b":")
    assert next(stream) == b""
    streams.close()


def test_a_stream_outlives_the_store_being_away(own_valkey):
    streams = streams_on(own_valkey.redis_url)
    stream = streams.open(Wanted(ALERTS))
    write(own_valkey.redis_url, [alert(alert_id="1")])
    assert len(first(stream, 1)) == 1
    own_valkey.stop()
    eventually(lambda: streams.polls > streams.read_at, "a poll that failed", every_s=0.01)
    assert next(stream) == b""
    opened_meanwhile = streams.open(Wanted(ALERTS))
    own_valkey.start()
    eventually(lambda: streams.read_at == streams.polls, "an answer", every_s=0.01)
    assert next(opened_meanwhile).startswith(b"retry: ")
    assert next(opened_meanwhile) == b""  # it has found its place
    write(own_valkey.redis_url, [alert(alert_id="2", event_time=T0 + 2)])
    for each in (stream, opened_meanwhile):
        assert b'"alert_id":"2"' in first(each, 1)[0][2]
    streams.close()


def test_a_stream_that_is_too_slow_is_closed_and_can_be_taken_up_again(valkey, db, monkeypatch):
    monkeypatch.setattr(features, "ALERTS_LOGGED", 20)
    streams = streams_on(valkey.redis_url)
    slow = streams.open(Wanted(ALERTS))
    after = event_id(next(slow).split(b"\n")[0].removeprefix(b"id: ").decode())
    for ten in range(0, 50, 10):  # no more at a time than the log keeps until it is read
        write(valkey.redis_url, [alert(alert_id=f"a-{i}", event_time=T0 + i) for i in range(ten, ten + 10)])
        eventually(lambda read=ten + 10: streams.end == read, "all of them read", every_s=0.01)
    with pytest.raises(StopIteration):
        next(slow)
    again = streams.open(Wanted(ALERTS, after=after))
    told = [json.loads(data)["alert_id"] for _, _, data in events(again, lambda found: len(found) >= 20)]
    assert told == [f"a-{i}" for i in range(50 - len(told), 50)]
    streams.close()


def test_streams_are_limited_and_one_that_is_closed_makes_room(valkey, db):
    streams = streams_on(valkey.redis_url, most=2)
    one, _ = streams.open(Wanted(ALL)), streams.open(Wanted(ALL))
    with pytest.raises(TooManyStreams):
        streams.open(Wanted(ALL))
    one.close()
    one.close()
    streams.open(Wanted(ALL))
    with pytest.raises(TooManyStreams):
        streams.open(Wanted(ALL))
    streams.close()


def test_closing_ends_every_stream_while_it_waits(streams):
    ended = []
    opened = [streams.open(Wanted(ALL)) for _ in range(3)]
    threads = [threading.Thread(target=lambda s=s: ended.append(len(list(s)))) for s in opened]
    for thread in threads:
        thread.start()
    streams.close()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 3
    with pytest.raises(TooManyStreams):
        streams.open(Wanted(ALL))


def test_an_entry_that_is_no_alert_is_left_out(streams, valkey, db, caplog):
    stream = streams.open(Wanted(ALERTS))
    for _ in range(3):
        db.xadd(KEYS.alert_log, {"alert": "{}"})
    write(valkey.redis_url, [alert()])
    assert [data for _, _, data in first(stream, 1)] == [features.alert_json(alert())]
    db.xadd(KEYS.alert_log, {"alert": "{}"})
    polls = streams.polls
    eventually(lambda: streams.polls > polls + 5, "the log is read again and again")
    assert caplog.text.count("is no alert") == 4, "once each"


class BrokenOnce:
    def __init__(self):
        self.answers = iter([ZeroDivisionError])

    def alert_log(self, *_):
        for error in self.answers:
            raise error
        return []

    def revenue_now(self, _):
        return b"{}"


def test_a_failure_nobody_foresaw_ends_the_streams_and_not_the_next_ones(monkeypatch):
    failures = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: failures.append(failure.exc_type))
    streams = Streams(BrokenOnce(), 2, retry_s=0.05)
    assert len(list(streams.open(Wanted(ALL)))) == 1
    assert failures == [ZeroDivisionError]
    assert b"revenue" in first(streams.open(Wanted(ALL)), 1)[0][1].encode()
    streams.close()


class AwayForRevenue:
    """A store that has an alert, but is gone when it is asked for revenue, once it is told so."""

    def __init__(self):
        self.log, self.fails = [], iter(())

    def alert_log(self, read_to, _):
        return [entry for entry in self.log if entry[0] > read_to]

    def revenue_now(self, _):
        if next(self.fails, False):
            self.log = [((1, 0), features.alert_json(alert()))]
            raise StoreUnavailable
        return b"{}"


def test_an_alert_that_comes_while_the_store_is_away_for_revenue_is_sent_when_it_is_back():
    store = AwayForRevenue()
    streams = Streams(store, 2, retry_s=0.05, poll_s=0.02)
    stream = streams.open(Wanted(ALL))
    first(stream, 1)
    store.log, store.fails = [((1, 0), features.alert_json(alert()))], iter([True])
    assert features.alert_json(alert()) in [data for _, _, data in first(stream, 1)]
    streams.close()


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?events=alerts", {}),
        ("?alert_type=", {}),
        ("?user_id=a%0A", {}),
        ("?limit=1", {}),
        ("", {"Last-Event-ID": "yesterday"}),
    ],
)
def test_a_wrong_question_is_a_400_before_the_stream_begins(client, query, headers):
    answer = client.get(f"/api/v1/stream{query}", headers=headers)
    assert answer.status_code == 400
    assert answer.json["success"] is False


def test_head_tells_the_headers_and_holds_nothing(client):
    for _ in range(Config.streams + 1):
        answer = client.head("/api/v1/stream")
        assert (answer.status_code, answer.content_type) == (200, "text/event-stream")


@contextlib.contextmanager
def listening(port, path="/api/v1/stream", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers=headers)
    with contextlib.closing(connection):
        yield connection.getresponse()


def chunks(answer):
    while chunk := answer.read1():
        yield chunk


@pytest.mark.stack
def test_streams_of_a_server_leave_its_other_requests_alone_and_end_when_it_stops(valkey, db, tmp_path):
    with running(valkey.redis_url, "--streams", "12", tmp_path=tmp_path) as server, contextlib.ExitStack() as open_ones:
        listeners = [open_ones.enter_context(listening(server.port)) for _ in range(12)]
        assert {answer.status for answer in listeners} == {200}
        with listening(server.port) as refused:
            assert refused.status == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert json.loads(refused.read())["success"] is False
        assert server.get("/api/v1/fraud-alerts")[0] == 200  # more streams than the store has connections
        write(valkey.redis_url, [alert(alert_id="live")])
        for answer in listeners:
            assert b'"alert_id":"live"' in first(chunks(answer), 1)[0][2]
        server.process.send_signal(signal.SIGTERM)
        for answer in listeners:
            assert not any(b"event" in rest for rest in chunks(answer))  # it ends, with a last chunk
        assert server.process.wait(8) == 0  # 10 s is when it would be killed


@pytest.mark.stack
def test_a_client_that_goes_away_makes_room_and_comes_back_to_where_it_was(valkey, db, tmp_path):
    with running(valkey.redis_url, "--streams", "1", tmp_path=tmp_path) as server:
        write(valkey.redis_url, [alert(alert_id="0")])
        with listening(server.port, "/api/v1/stream?events=alert") as answer:
            write(valkey.redis_url, [alert(alert_id="1", event_time=T0 + 1)])
            [(last_id, _, _)] = first(chunks(answer), 1)
        write(valkey.redis_url, [alert(alert_id="2", event_time=T0 - 1)])

        def heard():
            with listening(server.port, "/api/v1/stream?events=alert", **{"Last-Event-ID": last_id}) as answer:
                return first(chunks(answer), 1) if answer.status == 200 else None

        [(_, _, data)] = eventually(heard, "room for another stream")
        assert json.loads(data)["alert_id"] == "2"
