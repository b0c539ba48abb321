"""Events over HTTP, through the real server into real Kafka: what is answered is what is there."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from schemas import codec
from schemas.events import OrderEvent, avro_schema
from schemas.jobs.shop import CLICKS, EVENTS_API, EVENTS_LETTERS, ORDERS
from serving import api_keys
from serving.ingest.webhooks import HEADERS
from serving.server import _STOP_WITHIN_S
from stack import Stack
from tests import foreign
from tests.build import click, order
from tests.live import ROOT, eventually, messages_of
from tests.server import Server, running
from tests.serving.test_ingest import SECRET, signed
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    """Its own, as its broker is killed."""
    with Stack(tmp_path_factory.mktemp("events"), ["kafka", "registry", "valkey"], ports="free") as started:
        yield started


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("".join(f"{name}:{api_keys.sha256(name)}:{name}\n" for name in ("read", "write")))
    (file.parent / "webhooks").write_text(f"shopify.secret={SECRET}\nwoocommerce.secret={SECRET}\n")
    return file


@contextlib.contextmanager
def serving(stack, keys, tmp_path, *more) -> Iterator[Server]:
    flags = [
        f"--events=kafka://{stack.address('kafka')}",
        f"--registry={stack.registry_url}",
        f"--api_keys={keys}",
        f"--webhooks={keys.parent}/webhooks",
        *("--mapping=shopify", "--mapping=woocommerce", "--event_rate=100000/second", *more),
    ]
    with running(stack.redis_url, *flags, tmp_path=tmp_path) as server:
        yield server


@pytest.fixture
def server(stack, keys, tmp_path) -> Iterator[Server]:
    with serving(stack, keys, tmp_path, "--workers=2") as started:
        yield started


def post(server, raw, path="", timeout_s=60, **headers):
    """Status, answer and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout_s)
    named = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    with contextlib.closing(connection):
        connection.request("POST", f"/api/v1/events{path}", raw, named)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers


def posted(server, raw, path="", **headers):
    """As `post`, once the server has what it needs: a new one that asks a slow registry says that nothing was sent."""

    def answer():
        status, told, more = post(server, raw, path, **headers)
        return None if "nothing was sent" in told.get("error", "") else (status, told, more)

    return eventually(answer, "the server takes events")


def written(server, raw, path="", **headers):
    return posted(server, raw, path, X_API_Key="write", **headers)


def in_topic(stack, topic):
    """By partition and offset."""
    return {(m.partition(), m.offset()): m for m in messages_of(stack.address("kafka"), topic)}


def now_ms():
    return time.time_ns() // 1_000_000


def test_what_is_accepted_is_in_its_topic_as_a_job_reads_it_and_what_is_refused_among_the_letters(server, stack):
    now = now_ms()
    good = [order(f"o-{n}", user=f"u-{n % 7}", at=now - n) for n in range(40)]
    clicks = [click(f"c-{n}", at=now - n) for n in range(10)]
    bad = [{"order_id": ""}, {"what": 1}, msgspec.to_builtins(order("o", at=now)) | {"currency": "try"}]
    status, told, _ = written(server, msgspec.json.encode([*good, *bad, *clicks]))
    assert (status, told["accepted"], told["refused"], told["count"]) == (200, 50, 3, 53)
    assert all(each["dead_letter"] for each in told["data"] if each["status"] == "refused")

    decoder = codec.Decoder(OrderEvent, Registry(stack.registry_url).schema)
    found = in_topic(stack, ORDERS)
    for record, fate in zip(good, told["data"], strict=False):
        [place] = fate["records"]
        message = found[place["partition"], place["offset"]]
        assert place["topic"] == ORDERS
        assert message.value()[:1] == b"\0", "Avro, with the schema's id"
        assert decoder.decode(message.value()) == record
        assert (message.key(), message.timestamp()[1]) == (record.user_id.encode(), record.event_time)
    assert len({told["data"][n]["records"][0]["partition"] for n in range(0, 40, 7)}) == 1, "a user's are in order"
    assert len(in_topic(stack, CLICKS)) == 10
    assert server.metric("streamforge_events_total", mapping="own", outcome="accepted") == 50
    assert server.metric("streamforge_events_total", mapping="own", outcome="refused") == 3
    assert server.metric("streamforge_events_produced_total", topic=ORDERS) == 40


def tool(*words):
    done = subprocess.run(
        [sys.executable, "-m", "beam_pipelines.dead_letters", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout


def test_the_tool_reads_the_letters_and_a_mended_one_can_be_sent_again(server, stack, tmp_path):
    topic = f"kafka://{stack.address('kafka')}/{EVENTS_LETTERS}"
    event = next(each.message for each in foreign.stream("shopify", 500, 5) if "amount" in each.fault)
    raw = msgspec.json.encode(event)
    headers = {"X-Shopify-Topic": "orders/create", HEADERS["shopify"]: signed(raw), "X-Private": "no"}
    for _ in range(2):  # as a shop system does that heard no answer
        status, told, _ = posted(server, raw, "/shopify", **headers)
        assert (status, told["refused"]) == (200, 1)
    source = f"--registry={stack.registry_url}"
    lines = [
        msgspec.json.decode(line)
        for line in tool("inspect", topic, "--json", "--show=1", "--topic=/api/v1/events/shopify", source).splitlines()
    ]
    assert (lines[0]["open"], lines[0]["copies"]) == (1, 1)
    [group] = lines[0]["groups"]
    assert (group["topic"], group["error_class"]) == ("/api/v1/events/shopify", told["data"][0]["error_class"])
    assert EVENTS_API in tool("inspect", topic, "--show=1", source)
    assert "came from a file or over HTTP" in tool("replay", topic, "--topic=/api/v1/events/shopify", "--dry_run")

    tool("export", topic, "--topic=/api/v1/events/shopify", f"--to={tmp_path}/broken", source)
    [file] = (tmp_path / "broken" / "payloads").iterdir()
    assert file.read_bytes() == raw
    [envelope] = map(json.loads, (tmp_path / "broken" / "letters.jsonl").read_text().splitlines())
    assert [name for name, _ in envelope["headers"]] == ["x-shopify-topic"], "no signature, no key"
    mended = msgspec.json.encode(event | {"total_price": "10.00"})
    status, told, _ = written(server, mended, path="/shopify", X_Shopify_Topic="orders/create")
    assert (status, told["accepted"]) == (200, 1)


def test_two_shops_webhooks_from_several_at_once_end_in_the_topic_as_their_oracle_says(server, stack):
    before = set(in_topic(stack, ORDERS))
    sent = [(name, each) for name in ("shopify", "woocommerce") for each in foreign.stream(name, 150, 11)]
    answers = []

    def send(some):
        for name, each in some:
            raw = msgspec.json.encode(each.message)
            status, told, _ = posted(server, raw, f"/{name}", **each.headers, **{HEADERS[name]: signed(raw)})
            answers.append((status, told["data"][0]["status"], each))

    threads = [threading.Thread(target=send, args=(sent[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in answers} == {200}
    for _, fate, each in answers:
        assert fate == ("accepted" if each.order else "refused" if each.fault else "ignored")
    decoder = codec.Decoder(OrderEvent, Registry(stack.registry_url).schema)
    found = [decoder.decode(m.value()) for place, m in in_topic(stack, ORDERS).items() if place not in before]
    wanted = [each.order for _, each in sent if each.order]
    assert Counter(map(repr, found)) == Counter(map(repr, wanted))


def test_a_wrong_signature_or_key_reaches_no_topic(server, stack):
    before = {topic: len(in_topic(stack, topic)) for topic in (ORDERS, EVENTS_LETTERS)}
    raw = msgspec.json.encode(foreign.stream("shopify", 9)[0].message)
    assert post(server, raw, "/shopify", **{HEADERS["shopify"]: signed(raw, "other")})[0] == 401
    assert post(server, msgspec.json.encode(order()), X_API_Key="read")[0] == 403
    assert post(server, msgspec.json.encode(order()))[0] == 401
    assert {topic: len(in_topic(stack, topic)) for topic in before} == before


def test_a_body_too_large_and_a_client_that_never_finishes_hold_up_nobody(server):
    large = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(large):
        large.putrequest("POST", "/api/v1/events")
        for name, value in (("Content-Type", "application/json"), ("X-API-Key", "write"), ("Content-Length", 5 << 20)):
            large.putheader(name, value)
        large.endheaders()
        assert large.getresponse().status == 413
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    try:
        for each in slow:
            each.sendall(b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            each.sendall(b"X-API-Key: write\r\nContent-Length: 1000\r\n\r\n{")
        status, told, _ = written(server, msgspec.json.encode(order("beside", at=now_ms())))
        assert (status, told["accepted"]) == (200, 1)
        slow[0].settimeout(60)
        assert slow[0].recv(12) == b"HTTP/1.1 408"
    finally:
        for each in slow:
            each.close()


def test_a_broker_that_stops_answering_costs_a_503_and_no_read_waits_for_it(stack, keys, tmp_path):
    with serving(stack, keys, tmp_path, "--redis_connections=2") as server:
        raw = msgspec.json.encode(order("again", at=now_ms()))
        assert written(server, raw)[0] == 200
        broker = stack.pid("kafka")
        os.kill(broker, signal.SIGSTOP)
        try:
            answers: list = []
            writers = [
                threading.Thread(target=lambda: answers.append(post(server, raw, X_API_Key="write"))) for _ in range(6)
            ]
            for thread in writers:
                thread.start()
            reads = 0
            while any(thread.is_alive() for thread in writers):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                with contextlib.closing(connection):
                    connection.request("GET", "/api/v1/fraud-alerts", headers={"X-API-Key": "read"})
                    assert connection.getresponse().status == 200
                reads += 1
            assert {status for status, _, _ in answers} == {503}
            assert all(int(headers["Retry-After"]) >= 1 for _, _, headers in answers)
            told = [each["status"] for _, answer, _ in answers for each in answer.get("data", [])]
            assert told
            assert set(told) == {"unknown"}
            assert reads > len(answers), "they are answered while writes wait for ten seconds"
        finally:
            os.kill(broker, signal.SIGCONT)
        eventually(lambda: written(server, raw)[0] == 200, "it takes events again")
        found = [m for m in in_topic(stack, ORDERS).values() if b"again" in m.value()]
        assert len(found) >= 2, "sent again: in the topic more than once, and counted once by its id"


def test_a_broker_that_is_killed_and_comes_back_has_all_that_was_accepted(stack, keys, tmp_path):
    with serving(stack, keys, tmp_path, "--workers=2") as server:
        accepted, stop, killed = set(), threading.Event(), threading.Event()

        def send(writer):
            number = 0
            while not stop.is_set():
                name = f"kill-{writer}-{number}"
                status, told, _ = post(server, msgspec.json.encode(order(name, at=now_ms())), X_API_Key="write")
                if status == 200:
                    accepted.add((name, killed.is_set()))
                    number += 1
                else:
                    assert status == 503, told
                    stop.wait(0.2)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(accepted) > 20, "some are accepted")
            stack.kill("kafka")
            killed.set()
            stack.start("kafka")
            before = len(accepted)
            eventually(lambda: len(accepted) > before + 20, "some are accepted again")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        decoder = codec.Decoder(OrderEvent, Registry(stack.registry_url).schema)
        found = {decoder.decode(m.value()).order_id for m in in_topic(stack, ORDERS).values()}
        assert {name for name, _ in accepted} <= found


def test_a_stop_answers_what_is_under_way_and_loses_nothing_that_it_accepted(stack, keys, tmp_path):
    with serving(stack, keys, tmp_path) as server:
        accepted, threads = set(), []

        def send(writer):
            with contextlib.suppress(OSError, http.client.HTTPException):
                for number in range(10_000):
                    name = f"stop-{writer}-{number}"
                    if post(server, msgspec.json.encode(order(name, at=now_ms())), X_API_Key="write")[0] == 200:
                        accepted.add(name)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(accepted) > 20, "some are accepted")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(_STOP_WITHIN_S * 5) == 0
        for thread in threads:
            thread.join()
        decoder = codec.Decoder(OrderEvent, Registry(stack.registry_url).schema)
        found = {decoder.decode(m.value()).order_id for m in in_topic(stack, ORDERS).values()}
        assert accepted <= found


def test_schemas_of_the_door_are_those_that_jobs_read(stack):
    client = Registry(stack.registry_url)
    known = client.register(f"{ORDERS}-value", avro_schema(OrderEvent.__name__))
    assert codec.schema_id(next(iter(in_topic(stack, ORDERS).values())).value()) == known
