"""The OpenAPI document, generated from what each route declares; the same declaration parses the request.

So a parameter that is not declared cannot be read, and one that is declared is read as declared. A route without a
declaration is missing from the document, and `tests/serving/test_openapi.py` fails for it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from flask import Flask, Response, request
from werkzeug.routing import Rule

from serving import query
from serving.query import InvalidQuery, Parameter
from serving.resources import Failure

__all__ = ["JSON", "MAX_BODY_BYTES", "Operation", "WrongContentType", "document", "operation", "operations"]

V = TypeVar("V", bound=Callable[..., Response])

JSON = "application/json"
MAX_BODY_BYTES = 4 << 20  # 1,000 user ids of 256 characters take 3.1 MB, when all are written as \\uXXXX\\uXXXX

_INTRODUCTION = """\
The contents of StreamForge's online store: fraud alerts, sessions, revenue per minute and user features.

Every answer is `{"success":true,"data":…,"count":n}` or `{"success":false,"error":"one sentence"}`. Amounts are in
main units of the `currency` beside them, times are RFC 3339 in UTC. Lists are newest first; follow `next_cursor` until
it is null. An unknown address answers 404, an unsupported method 405 with `Allow`. Clients must ignore unknown fields.

Percent-encode an id in a path (`auth0%7C5f`, `a%2Fb`). Browsers and some libraries remove `.` and `..` from paths,
encoded or not, so lists also accept the id as a query parameter, and `POST /features` in its body."""
_KEYS_INTRODUCTION = """

Send your API key with every request that needs one, as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
_MEANING = {
    400: "A parameter or the body is invalid, or the parameter does not exist.",
    401: "The API key is missing or unknown.",
    403: "The API key is for something else.",
    413: f"The body is larger than {MAX_BODY_BYTES >> 20} MiB.",
    415: "The body is not JSON, or its Content-Type is not.",
    429: "Too many requests; retry after the seconds in `Retry-After`.",
    500: "The server failed; its log has the details.",
    503: "The online store does not answer; retry after the seconds in `Retry-After`.",
}
_RETRY_AFTER = {
    "Retry-After": {"description": "seconds", "required": True, "schema": {"type": "integer", "minimum": 1}}
}


class WrongContentType(Exception):
    """The body's Content-Type is none of those that are accepted."""

    def __init__(self, *accepted: str):
        super().__init__()
        self.accepted = accepted


@dataclass(frozen=True)
class Operation:
    """A route's parameters, body and answers.

    Attributes:
      answer: the content of a 200: a type, sent as JSON, or a media type.
      path, query, headers: the parameters.
      body: the type of the JSON body.
      media: media types of a body that the view reads by itself, as bytes; the first is JSON.
      missing: what a 404 means; None if there is none.
      unfit: what a 422 means; None if there is none.
      busy: what a 503 means, other than that the store is down.
      needs_store: whether it answers 503 when the store is down.
      free: needs no API key and does not count against the rate limit.
      scope: what a key must be for.
      signed: a signature may stand for a key.
      guarded: what a 403 means where no key is needed; None if there is none.
      counted: whether it answers 429 also where no rate limit is set.
      failed: types of failures that say more than others, by status.
    """

    answer: type | str
    path: Sequence[Parameter]
    query: Sequence[Parameter]
    headers: Sequence[Parameter]
    body: type | None = None
    media: Sequence[str] = ()
    missing: str | None = None
    unfit: str | None = None
    busy: str | None = None
    needs_store: bool = True
    free: bool = False
    scope: str = "read"
    signed: bool = False
    guarded: str | None = None
    counted: bool = False
    failed: Mapping[int, type] = field(default_factory=dict)

    def failures(self, keys: bool, limited: bool) -> dict[int, str]:
        """What each status other than 200 means."""
        statuses = [400]
        if keys and not self.free:
            statuses += [401, 403]
        elif self.signed:
            statuses.append(401)
        if self.body or self.media:
            statuses += [413, 415]
        if (limited and not self.free) or self.counted:
            statuses.append(429)
        statuses.append(500)
        if self.needs_store:
            statuses.append(503)
        found = {status: _MEANING[status] for status in statuses}
        if self.missing:
            found[404] = self.missing
        if self.unfit:
            found[422] = self.unfit
        if self.guarded and not keys:
            found[403] = self.guarded
        if self.busy:
            found[503] = self.busy
        return dict(sorted(found.items()))


def operation(
    answer: type | str,
    *,
    path: Sequence[Parameter] = (),
    query: Sequence[Parameter] = (),
    headers: Sequence[Parameter] = (),
    **more: Any,
) -> Callable[[V], V]:
    """Declares a view, as `Operation` says. It gets the values that it declares by name, the body as `body`.

    The view's docstring becomes summary (first line) and description.
    """
    declared = Operation(answer, path, query, headers, **more)

    def declare(view: V) -> V:
        read = _reader(declared)

        @functools.wraps(view)
        def read_and_answer(**texts: str) -> Response:
            return view(**read(texts))

        read_and_answer.operation = declared  # type: ignore[attr-defined]
        return read_and_answer  # type: ignore[return-value]

    return declare


def _reader(declared: Operation) -> Callable[[Mapping[str, str]], dict[str, Any]]:
    """Reads a request's values; a request without a query, as most are, pays nothing for it."""
    in_query = {parameter.name: parameter for parameter in declared.query}
    is_asked = any(parameter.required for parameter in declared.query)
    nothing_asked = {} if is_asked else query.read(in_query, {})
    in_headers = {parameter.name: parameter for parameter in declared.headers}
    decoder: msgspec.json.Decoder[Any] | None = msgspec.json.Decoder(declared.body) if declared.body else None

    def read(texts: Mapping[str, str]) -> dict[str, Any]:
        values = {parameter.argument: parameter.read(texts[parameter.name]) for parameter in declared.path}
        values |= query.read(in_query, _asked()) if is_asked or request.query_string else nothing_asked
        if in_headers:
            given = {name: [request.headers[name]] for name in in_headers if name in request.headers}
            values |= query.read(in_headers, given)
        if decoder:
            values["body"] = _body(decoder)
        elif declared.media:
            values["body"] = _bytes(declared.media)
        return values

    return read


def _asked() -> dict[str, list[str]]:
    try:
        return request.args.to_dict(flat=False)
    except UnicodeDecodeError as e:
        raise query.InvalidQuery("the query is not UTF-8: percent-encode what is not ASCII") from e


def _body(decoder: msgspec.json.Decoder[Any]) -> Any:
    if request.mimetype != JSON:
        raise WrongContentType(JSON)
    try:
        return decoder.decode(request.get_data())
    except msgspec.ValidationError as e:
        raise InvalidQuery(f"the body does not match its schema in /docs: {str(e)[:200]}") from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidQuery("the body is not JSON") from e


def _bytes(accepted: Sequence[str]) -> bytes:
    if request.mimetype not in accepted or request.headers.get("Content-Encoding", "identity") != "identity":
        raise WrongContentType(*accepted)
    return request.get_data()


def operations(app: Flask) -> Iterator[tuple[Rule, str, Callable[..., Any], Operation | None]]:
    """Every route with its method, view and declaration, sorted; without HEAD and OPTIONS, which Flask answers."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        view = app.view_functions[rule.endpoint]
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method, view, getattr(view, "operation", None)


def document(app: Flask, version: str, keys: bool, limited: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of the app's routes.

    Args:
      keys: requests need an API key.
      limited: requests are counted.
    """
    declared = [(rule, method, view, found) for rule, method, view, found in operations(app) if found]
    types = [
        t for *_, found in declared for t in (found.answer, found.body, *found.failed.values()) if isinstance(t, type)
    ]
    types = list(dict.fromkeys([Failure, *types]))
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for rule, method, view, found in declared:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _operation(rule, view, found, keys, limited)
    introduction = _INTRODUCTION + (_KEYS_INTRODUCTION if keys else "")
    components: dict[str, Any] = {"schemas": {name: schemas[name] for name in sorted(schemas)}}
    if keys:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "StreamForge",
            "version": version,
            "description": introduction,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    }


def _operation(rule: Rule, view: Callable[..., Any], declared: Operation, keys: bool, limited: bool) -> dict[str, Any]:
    summary, _, description = (view.__doc__ or "").partition("\n")
    told: dict[str, Any] = {"operationId": rule.endpoint.rpartition(".")[2], "summary": summary}
    if description.strip():
        told["description"] = "\n".join(line.strip() for line in description.strip().splitlines())
    if keys and not declared.free:
        told["security"] = [{"bearer": []}, {"header": []}]
    places = (("path", declared.path), ("query", declared.query), ("header", declared.headers))
    parameters = [_parameter(each, place) for place, those in places for each in those]
    if parameters:
        told["parameters"] = parameters
    if declared.body:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": _schema(declared.body)}}}
    elif declared.media:
        told["requestBody"] = {"required": True, "content": {media: {"schema": {}} for media in declared.media}}
    good = {"description": _first_line(declared.answer), "content": _content(declared.answer)}
    bad = {
        str(status): {"description": meaning, "content": _content(declared.failed.get(status, Failure))}
        | ({"headers": _RETRY_AFTER} if status in (429, 503) else {})
        for status, meaning in declared.failures(keys, limited).items()
    }
    told["responses"] = {"200": good, **bad}
    return told


def _parameter(parameter: Parameter, place: str) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": place,
        "required": parameter.required or place == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _schema(kind: type) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _content(answer: type | str) -> dict[str, Any]:
    if isinstance(answer, str):
        return {answer: {"schema": {"type": "string"}}}
    return {JSON: {"schema": _schema(answer)}}


def _first_line(answer: type | str) -> str:
    if isinstance(answer, str):
        return HTTPStatus(200).phrase
    return (answer.__doc__ or "").partition("\n")[0]
