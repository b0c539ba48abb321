"""What the registry's answers become, against a small server that gives them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from schemas.codec import UnknownSchema
from schemas.events import avro_schema
from transforms.io.registry import Registry


class _Answers(BaseHTTPRequestHandler):
    schemas: ClassVar[dict[str, dict[str, str]]] = {
        "/schemas/ids/1": {"schema": json.dumps(avro_schema("OrderEvent"))},
        "/schemas/ids/2": {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"},
        "/schemas/ids/3": {"schema": '{"type":"object"}', "schemaType": "JSON"},
    }

    def do_GET(self) -> None:
        found = self.schemas.get(self.path.partition("?")[0])
        if self.path.startswith("/subjects"):
            self._answer(200, [])
        elif found is None:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})
        else:
            self._answer(200, found)

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_schema_comes_back_as_it_was_registered(url: str) -> None:
    assert Registry(url).schema(1) == avro_schema("OrderEvent")


def test_an_id_that_does_not_exist_is_unknown(url: str) -> None:
    with pytest.raises(UnknownSchema, match="no schema with id 404 in the registry"):
        Registry(url).schema(404)


@pytest.mark.parametrize(("schema_id", "kind"), [(2, "PROTOBUF"), (3, "JSON")])
def test_a_schema_of_another_language_is_unknown_to_us(url: str, schema_id: int, kind: str) -> None:
    with pytest.raises(UnknownSchema, match=f"schema {schema_id} is {kind}, not Avro"):
        Registry(url).schema(schema_id)


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
