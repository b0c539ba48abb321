"""Holds an app to its OpenAPI document: an answer that the document does not describe fails the test that got it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
from backports import zstd
from flask import Flask, Response, request

from serving import openapi


def strictly(schema: Any) -> Any:
    """The schema, with no field allowed that it does not name: clients bear new fields, the document must have them."""
    if isinstance(schema, dict):
        kept = {key: strictly(value) for key, value in schema.items()}
        return kept | {"additionalProperties": False} if "properties" in schema else kept
    return [strictly(each) for each in schema] if isinstance(schema, list) else schema


def body_of(response: Response) -> bytes:
    body = response.get_data()
    encoding = response.headers.get("Content-Encoding")
    return {"gzip": gzip.decompress, "zstd": zstd.decompress}[encoding](body) if encoding else body


class Description:
    """What a document says of answers."""

    def __init__(self, document: Mapping[str, Any]):
        self.document = document
        self._components = strictly(json.loads(json.dumps(document["components"])))

    def of(self, rule: str, method: str, status: int) -> Mapping[str, Any]:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)
        described: Mapping[str, Any] = self.document["paths"][path][method.lower()]["responses"]
        assert str(status) in described, f"{method} {path} is not said to answer {status}"
        return described[str(status)]

    def check(self, rule: str, method: str, response: Response) -> None:
        """Raises: AssertionError, jsonschema_rs.ValidationError."""
        described = self.of(rule, method, response.status_code)
        assert response.mimetype in described["content"], response.mimetype
        for name, header in described.get("headers", {}).items():
            assert name in response.headers or not header["required"], f"no {name}"
        schema = described["content"][response.mimetype]["schema"]
        if "$ref" in schema:
            whole = {**schema, "components": self._components}
            jsonschema_rs.validate(whole, json.loads(body_of(response)), validate_formats=True)


def hold_to_its_document(app: Flask, *, keys: bool = False, limited: bool = False) -> Description:
    """From now on, every answer of the app's routes is checked."""
    description = Description(openapi.document(app, "test", keys, limited))

    @app.after_request
    def _check(response: Response) -> Response:
        declared = request.url_rule and hasattr(app.view_functions[request.url_rule.endpoint], "operation")
        if declared and request.method not in ("HEAD", "OPTIONS") and response.status_code != 304:
            description.check(request.url_rule.rule, request.method, response)
        return response

    return description
