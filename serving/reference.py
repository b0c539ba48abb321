"""The OpenAPI document at /openapi.json, and as a page at /docs: plain HTML rendered here, no script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, cast

import msgspec
from flask import Blueprint, Response, current_app, request

from serving import answers, openapi
from serving.config import Config
from serving.openapi import operation
from serving.routes import version

__all__ = ["page", "pages"]

pages = Blueprint("reference", __name__)

_STYLES = (Path(__file__).parent / "reference.css").read_bytes()
_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_ADDRESS = "http://127.0.0.1:8090"
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?", re.ASCII)
_BODIES = {"features_of_users": '{"user_ids":["user-1","user-2"]}', "label_alert": '{"state":"confirmed"}'}


@pages.get("/openapi.json")
@operation(openapi.JSON, needs_store=False, free=True)
def document() -> Response:
    """This description, as OpenAPI 3.1."""
    return _answer(msgspec.json.encode(_document()), openapi.JSON)


@pages.get("/docs")
@operation("text/html", needs_store=False, free=True)
def docs() -> Response:
    """This description, for people."""
    return _answer(page(_document(), _address()).encode(), "text/html; charset=utf-8")


def _address() -> str:
    """Where the reader has found this server, for examples that can be copied."""
    host = request.headers.get("Host", "")
    if not _HOST.fullmatch(host):
        return _ADDRESS
    is_tls = "https" in (request.scheme, request.headers.get("X-Forwarded-Proto"))
    return f"{'https' if is_tls else 'http'}://{host}"


@pages.get("/docs.css")
def styles() -> Response:
    """The styles of /docs."""
    return _answer(_STYLES, "text/css; charset=utf-8")


def _document() -> dict[str, Any]:
    """Built at the first request: by then every route is registered."""
    made = current_app.extensions.get("streamforge.document")
    if made is None:
        config = cast(Config, current_app.extensions["streamforge.config"])
        made = openapi.document(current_app, version(), bool(config.api_keys), config.rate_limit is not None)
        current_app.extensions["streamforge.document"] = made
    return cast("dict[str, Any]", made)


def _answer(body: bytes, content_type: str) -> Response:
    response = Response(body, content_type=content_type)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag(weak=True)  # the same for each encoding
    return cast(Response, answers.compressed(response).make_conditional(request))


def page(document: Mapping[str, Any], address: str = _ADDRESS) -> str:
    """An OpenAPI document, of those that `serving.openapi` makes, as HTML; the examples ask the server at `address`."""
    operations = [
        (path, method, each) for path, methods in document["paths"].items() for method, each in methods.items()
    ]
    contents = "".join(
        f'<li><a href="#{each["operationId"]}"><b>{method.upper()}</b> {escape(path)}</a></li>'
        for path, method, each in operations
    )
    schemas = document["components"]["schemas"]
    types = "".join(f'<li><a href="#type-{name}">{escape(name)}</a></li>' for name in schemas)
    parts = [
        *(_operation(path, method, each, address) for path, method, each in operations),
        '<h1 id="types">Types</h1>',
        *(_type_section(name, schema) for name, schema in schemas.items()),
    ]
    title = f"{escape(document['info']['title'])} API"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="/docs.css">
</head>
<body>
<nav aria-label="Contents"><a class="home" href="/">StreamForge</a><ul>{contents}</ul>
<p><a href="#types">Types</a></p><ul>{types}</ul></nav>
<main>
<h1>{title}</h1>
<p class="version">{escape(document["info"]["version"])} · <a href="/openapi.json">OpenAPI {document["openapi"]}</a></p>
{_prose(document["info"]["description"])}
{"".join(parts)}
</main>
</body>
</html>
"""


def _operation(path: str, method: str, told: Mapping[str, Any], address: str) -> str:
    parts = [
        f'<section id="{told["operationId"]}"><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>',
        _prose(told["summary"]),
        _prose(told.get("description", "")),
    ]
    if "security" in told:
        parts.append("<p>Needs an API key.</p>")
    if "parameters" in told:
        rows = "".join(_parameter(each) for each in told["parameters"])
        parts.append(_table("Parameters", ("Name", "In", "Value", "Meaning"), rows))
    if "requestBody" in told:
        parts.append(f"<p>Body: {_content(told['requestBody'])}</p>")
    rows = "".join(
        f"<tr><th scope=row>{status}</th><td>{_content(each)}</td><td>{_inline(each['description'])}</td></tr>"
        for status, each in told["responses"].items()
    )
    parts.append(_table("Answers", ("Status", "Body", "Meaning"), rows))
    parts.append(f"<pre><code>{escape(_example(path, method, told, address))}</code></pre></section>")
    return "".join(parts)


def _parameter(told: Mapping[str, Any]) -> str:
    need = "" if told["required"] else "optional, "
    return (
        f"<tr><th scope=row><code>{escape(told['name'])}</code></th><td>{need}{told['in']}</td>"
        f"<td>{_type(told['schema'])}</td><td>{_inline(told['description'])}</td></tr>"
    )


def _type_section(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><th scope=row><code>{escape(field)}</code></th>"
        f"<td>{'' if field in required else 'optional, '}{_type(of)}</td>"
        f"<td>{_inline(of.get('description', ''))}</td></tr>"
        for field, of in schema["properties"].items()
    )
    about = _prose(schema.get("description", ""))
    table = _table(f"Fields of {name}", ("Field", "Value", "Meaning"), rows)
    return f'<section id="type-{name}"><h2>{escape(name)}</h2>{about}{table}</section>'


def _table(caption: str, heads: tuple[str, ...], rows: str) -> str:
    head = "".join(f"<th scope=col>{each}</th>" for each in heads)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _content(told: Mapping[str, Any]) -> str:
    return ", ".join(
        _type(each["schema"]) if media == openapi.JSON and "$ref" in each["schema"] else f"<code>{escape(media)}</code>"
        for media, each in told["content"].items()
    )


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#type-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return " or ".join(f"<code>{escape(msgspec.json.encode(value).decode())}</code>" for value in values)
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}{_bounds(schema, 'minItems', 'maxItems')}"
    if schema["type"] == "object":
        return f"map of names to {_type(schema['additionalProperties'])}"
    words = "time" if schema.get("format") == "date-time" else {"boolean": "true or false"}.get(schema["type"])
    return "".join(_details(words or schema["type"], schema))


def _details(words: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield words
    yield _bounds(schema, "minimum", "maximum") + _bounds(schema, "minLength", "maxLength")
    if "pattern" in schema:
        yield f" <code>{escape(schema['pattern'])}</code>"
    if "default" in schema:
        yield f", default <code>{escape(str(schema['default']).lower())}</code>"


def _bounds(schema: Mapping[str, Any], low: str, high: str) -> str:
    if low in schema and high in schema:
        return f", {schema[low]} to {schema[high]}"
    return f", at least {schema[low]}" if low in schema else f", at most {schema[high]}" if high in schema else ""


def _example(path: str, method: str, told: Mapping[str, Any], server: str) -> str:
    flags = "-sN" if "text/event-stream" in told["responses"]["200"]["content"] else "-s"
    address = re.sub(r"{(\w+)_id}", r"\1-1", path).replace("{mapping}", "shopify")  # {user_id}: user-1
    needed = [each for each in told.get("parameters", ()) if each["in"] == "query" and each["required"]]
    if needed:
        address += "?" + "&".join(f"{each['name']}={each['schema']['examples'][0]}" for each in needed)
    command = f"curl {flags} '{server}{address}'"
    if method in ("post", "put"):
        how = " -X PUT" if method == "put" else ""
        body = _BODIES.get(told["operationId"], "@events.json")
        command += f"{how} -H 'Content-Type: application/json' -d '{body}'"
    return command + (" -H 'X-API-Key: KEY'" if "security" in told else "")


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
