"""What the registry's answers become, against a small server that gives them."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from schemas import codec
from schemas.codec import Described, SchemaUnavailable, Undecodable, UnknownSchema
from schemas.events import avro_schema
from transforms.io import registry
from transforms.io.registry import Registry

PRICE = {"type": "record", "name": "Price", "namespace": "shop", "fields": [{"name": "minor", "type": "long"}]}
LINE = {
    "type": "record",
    "name": "Line",
    "namespace": "shop",
    "fields": [{"name": "price", "type": "Price"}, {"name": "note", "type": "string", "default": None}],
}
REFERRING = {
    "type": "record",
    "name": "Cart",
    "namespace": "shop",
    "fields": [
        {"name": "first", "type": "Line"},
        {"name": "lines", "type": {"type": "array", "items": "shop.Line"}},
        {"name": "total", "type": ["null", "shop.Price"]},
    ],
}


class _Answers(BaseHTTPRequestHandler):
    raw: ClassVar[tuple[int, bytes] | None] = None
    asked: ClassVar[list[str]] = []
    schemas: ClassVar[dict[str, dict[str, Any]]] = {
        "/schemas/ids/1": {"schema": json.dumps(avro_schema("OrderEvent"))},
        "/schemas/ids/2": {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"},
        "/schemas/ids/3": {"schema": '{"type":"object"}', "schemaType": "JSON"},
        "/schemas/ids/4": {"schema": "not JSON"},
        "/schemas/ids/5": {
            "schema": json.dumps(REFERRING),
            "references": [{"name": "shop.Line", "subject": "line", "version": 2}],
        },
        "/subjects/line/versions/2": {
            "schema": json.dumps(LINE),
            "subject": "line",
            "version": 2,
            "id": 50,
            "references": [{"name": "shop.Price", "subject": "price", "version": 1}],
        },
        "/subjects/price/versions/1": {"schema": json.dumps(PRICE), "subject": "price", "version": 1, "id": 51},
        "/schemas/ids/6": {
            "schema": json.dumps(REFERRING),
            "references": [{"name": "shop.Line", "subject": "ring", "version": 1}],
        },
        "/subjects/ring/versions/1": {
            "schema": json.dumps(LINE),
            "subject": "ring",
            "version": 1,
            "id": 52,
            "references": [{"name": "shop.Line", "subject": "ring", "version": 1}],
        },
        "/schemas/ids/7": {
            "schema": json.dumps(REFERRING),
            "references": [{"name": "shop.Line", "subject": "gone", "version": 1}],
        },
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        found = self.schemas.get(path)
        if self.raw is not None and path.startswith("/schemas"):
            self._send(*self.raw)
        elif path == "/subjects":
            self._answer(200, [])
        elif path.startswith("/subjects/"):
            code = 40402 if "gone" in path else 40403
            self._answer(404 if found is None else 200, found or {"error_code": code, "message": "Not found"})
        elif found is None:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})
        else:
            self._answer(200, found)

    def _answer(self, status: int, body: object) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if 300 <= status < 400:
            self.send_header("Location", "/login")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.rstrip(b" "))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def url() -> Iterator[str]:
    _Answers.raw = None
    _Answers.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_schema_comes_back_as_it_was_registered(url: str) -> None:
    assert Registry(url).schema(1) == avro_schema("OrderEvent")


def test_an_id_that_does_not_exist_is_unknown(url: str) -> None:
    with pytest.raises(UnknownSchema, match="no schema with id 404 in the registry"):
        Registry(url).schema(404)


@pytest.mark.parametrize(("schema_id", "kind"), [(2, "PROTOBUF"), (3, "JSON")])
def test_a_schema_of_another_language_comes_back_with_its_language(url: str, schema_id: int, kind: str) -> None:
    found = Registry(url).schema(schema_id)
    assert isinstance(found, Described)
    assert found.kind == kind
    assert found.text


def test_a_registry_that_knows_no_guids_does_not_know_this_one(url: str) -> None:
    with pytest.raises(UnknownSchema, match="no schema with GUID 0-1"):
        Registry(url).schema("0-1")


def test_a_registry_that_answers_passes_the_check_and_one_that_does_not_is_named(
    url: str, unused_tcp_port: int
) -> None:
    Registry(url).check()
    nobody = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(OSError, match=f"no schema registry answers at {nobody}"):
        Registry(nobody).check()


@pytest.fixture
def unused_tcp_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        return server.server_port


# Answers that are no registry's

NO_ANSWER = {
    "a proxy's page that says not found": (404, b"<html>Not Found</html>"),
    "a proxy's own JSON": (404, b'{"message": "no route"}'),
    "another code of the registry": (404, b'{"error_code": 40401, "message": "Subject not found"}'),
    "a page where JSON was to be": (200, b"<html>Welcome</html>"),
    "half a JSON": (200, b'{"schema": "{'),
    "nothing": (200, b""),
    "JSON of another shape": (200, b"[1]"),
    "an object without a schema": (200, b"{}"),
    "a login": (302, b""),
    "not logged in": (401, b'{"error_code": 40101, "message": "Unauthorized"}'),
    "not allowed": (403, b"Forbidden"),
    "too many questions": (429, b""),
    "out of order": (500, b'{"error_code": 50001, "message": "Error in the backend data store"}'),
    "JSON nested without measure": (200, b"[" * 200_000),
    "a schema that is a number": (200, b'{"schema": 5}'),
    "a schema that is an object": (200, b'{"schema": {"type": "record"}}'),
    "a language that is a number": (200, b'{"schema": "{}", "schemaType": 7}'),
    "references that are a text": (200, b'{"schema": "{}", "references": "x"}'),
    "references that are numbers": (200, b'{"schema": "{}", "references": [5]}'),
    "a reference to a number": (200, b'{"schema": "{}", "references": [{"name": "n", "subject": 5, "version": "x"}]}'),
    "a code that is a list": (404, b'{"error_code": [40403], "message": 7}'),
    "no UTF-8": (200, b'{"schema": "\xff"}'),
    "half a body": (200, b'{"schema": "{}"}' + b" " * 4096),
    "not there": (503, b"<html>Service Unavailable</html>"),
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_what_no_registry_says_of_an_id_is_no_answer_and_refused_before_the_start(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SchemaRegistryClient, "__init__", _impatient)
    _Answers.raw = NO_ANSWER[name]
    with pytest.raises(SchemaUnavailable):
        Registry(url).schema(1)
    with pytest.raises(OSError, match=f"no schema registry answers at {url}"):
        Registry(url).check()


_init = SchemaRegistryClient.__init__


def _impatient(client: Any, conf: dict[str, Any]) -> None:
    """The client asks again by itself, for some seconds: that is not what is tried here."""
    _init(client, conf | {"max.retries": 0})


def test_a_job_waits_for_a_registry_that_comes_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SchemaRegistryClient, "__init__", _impatient)
    _Answers.raw = NO_ANSWER["not there"]

    def comes_back(seconds: float) -> None:
        assert seconds == 0.25
        _Answers.raw = None

    monkeypatch.setattr(registry.time, "sleep", comes_back)
    assert Registry(url, waits_s=(0.25,)).schema(1) == avro_schema("OrderEvent")


def test_an_unknown_id_is_asked_for_once_in_five_seconds_and_found_when_it_is_there_by_then(url: str) -> None:
    now = 100.0
    one = Registry(url, clock=lambda: now)
    for seconds in (0.0, 1.0, 4.9):
        now = 100.0 + seconds
        with pytest.raises(UnknownSchema, match="no schema with id 404"):
            one.schema(404)
    assert _Answers.asked.count("/schemas/ids/404") == 1
    now = 105.1
    with pytest.raises(UnknownSchema):
        one.schema(404)
    assert _Answers.asked.count("/schemas/ids/404") == 2


def test_ids_that_are_unknown_are_remembered_within_bounds(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_MOST_UNKNOWN", 3)
    one = Registry(url)
    for i in range(100, 110):
        with pytest.raises(UnknownSchema):
            one.schema(i)
        assert len(one._unknown) <= 3


def test_what_is_registered_and_no_json_is_undecodable(url: str) -> None:
    with pytest.raises(Undecodable, match="schema 4 is not JSON"):
        Registry(url).schema(4)


# References


def test_a_schema_that_refers_to_others_is_written_out_and_reads_its_data(url: str) -> None:
    found = Registry(url).schema(5)
    line = {"price": {"minor": 5}, "note": "ü"}
    cart = {"first": line, "lines": [line, line], "total": {"minor": 15}}
    whole: dict[str, Any] = {}
    for each in (PRICE, LINE | {"fields": [*LINE["fields"][:1], {"name": "note", "type": "string"}]}, REFERRING):
        parsed = fastavro.parse_schema(each, named_schemas=whole)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, cart)
    writer = codec.Writer(found)
    assert writer.walk.end(out.getvalue()) == len(out.getvalue())
    assert fastavro.schemaless_reader(io.BytesIO(out.getvalue()), writer.schema, None) == cart


def test_references_in_a_circle_are_refused_and_those_that_lead_nowhere_are_unknown(url: str) -> None:
    with pytest.raises(Undecodable, match="schema 6 refers to itself"):
        Registry(url).schema(6)
    with pytest.raises(UnknownSchema, match="schema 7 refers to gone 1, which is not there"):
        Registry(url).schema(7)
