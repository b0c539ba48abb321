"""The description is complete. That answers are as described is checked by the `client` fixture, in every test."""

import json
import re
from html.parser import HTMLParser

import jsonschema_rs
import pytest
from flask import Flask, Response

from serving import Config, create_app, openapi, reference, resources
from serving.api_keys import ApiKey
from serving.query import LISTING, USER_ID
from tests.described import Description, hold_to_its_document

NOT_DESCRIBED = {"/", "/docs.css"}  # pages for people, and below what they load
KEYS = (ApiKey("ann", "0" * 64),)


@pytest.fixture
def app():
    return create_app(Config())


def undescribed(app):
    """Routes without a declaration, which are not of the pages."""
    return [
        rule.rule
        for rule, _, _, declared in openapi.operations(app)
        if not declared and rule.rule not in NOT_DESCRIBED and not rule.endpoint.startswith("dashboard.")
    ]


def test_every_route_is_described(app):
    assert undescribed(app) == []
    document = openapi.document(app, "1", keys=False, limited=False)
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    declared = [(rule, method) for rule, method, _, operation in openapi.operations(app) if operation]
    assert described == {(re.sub("<(.*?)>", r"{\1}", rule.rule), method.lower()) for rule, method in declared}
    assert len(described) == len(declared) >= 16


def test_a_route_nobody_described_is_found(app):
    app.add_url_rule("/api/v1/secret", view_func=lambda: Response())
    assert undescribed(app) == ["/api/v1/secret"]


def test_a_route_is_in_the_description_as_soon_as_it_is_in_the_app(app):
    @app.get("/api/v1/new/<user_id>")
    @openapi.operation(resources.ProbeAnswer, path=[USER_ID], query=LISTING, missing="There is none.")
    def new(**values):
        """A new one."""

    told = openapi.document(app, "1", keys=False, limited=False)["paths"]["/api/v1/new/{user_id}"]["get"]
    assert told["summary"] == "A new one."
    assert [(p["name"], p["in"], p["required"]) for p in told["parameters"]] == [
        ("user_id", "path", True),
        *((parameter.name, "query", False) for parameter in LISTING),
    ]
    assert set(told["responses"]) == {"200", "400", "404", "500", "503"}


def test_every_operation_says_what_it_does_and_every_path_parameter_is_declared(app):
    document = openapi.document(app, "1", keys=False, limited=False)
    told = [(path, each) for path, methods in document["paths"].items() for each in methods.values()]
    assert len({each["operationId"] for _, each in told}) == len(told)
    for path, each in told:
        assert each["summary"].endswith("."), path
        declared = {p["name"] for p in each.get("parameters", ()) if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        for parameter in each.get("parameters", ()):
            assert parameter["description"].endswith("."), parameter


def test_the_schemas_are_json_schemas_and_every_reference_leads_somewhere(app):
    document = openapi.document(app, "1", keys=True, limited=True)
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    references = set(re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references == set(schemas)


def test_keys_and_limits_are_in_the_description_of_a_server_that_has_them(app):
    open_to_all = openapi.document(app, "1", keys=False, limited=False)
    guarded = openapi.document(app, "1", keys=True, limited=True)
    assert "securitySchemes" not in open_to_all["components"]
    alerts, health = (guarded["paths"][f"/api/v1/{path}"]["get"] for path in ("fraud-alerts", "health"))
    assert {"401", "429"} <= set(alerts["responses"])
    assert alerts["security"] == [{"bearer": []}, {"header": []}]
    assert not {"401", "429"} & set(health["responses"])
    assert "security" not in health
    served = create_app(Config(api_keys=KEYS, rate_limit="5/second")).test_client().get("/openapi.json").json
    assert "401" in served["paths"]["/api/v1/info"]["get"]["responses"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Response('{"success":true,"data":{"status":"ok","new":1},"count":1}', mimetype="application/json"), "new"),
        (Response('{"success":true,"data":{"status":"fine"},"count":1}', mimetype="application/json"), "fine"),
        (Response('{"success":true,"data":{"status":"ok"}}', mimetype="application/json"), "count"),
        (Response("{}", 404, mimetype="application/json"), "not said to answer 404"),
        (Response("ok", mimetype="text/plain"), "text/plain"),
        (Response('{"success":false,"error":"x"}', 503, mimetype="application/json"), "Retry-After"),
    ],
)
def test_an_answer_that_is_not_as_described_fails_the_test_that_gets_it(answer, why):
    app = Flask("planted")
    view = openapi.operation(resources.ProbeAnswer)(lambda: answer)
    app.add_url_rule("/probe", "probe", view)
    with pytest.raises((AssertionError, jsonschema_rs.ValidationError), match=why):
        Description(openapi.document(app, "1", keys=False, limited=False)).check("/probe", "GET", answer)


def test_the_document_is_served_once_made_and_not_sent_again_when_unchanged(client):
    answer = client.get("/openapi.json")
    assert answer.json["openapi"].startswith("3.1")
    assert answer.json["paths"] == openapi.document(client.application, "1", keys=False, limited=False)["paths"]
    assert client.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.texts = [], set(), [], set(), []
        self.feed(text)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert not any(name == "style" or name.startswith("on") for name in attributes)
        self.tags.add(tag)
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_says_all_that_the_document_says_and_loads_nothing_from_elsewhere(client):
    answer = client.get("/docs")
    page, document = Page(answer.text), client.get("/openapi.json").json
    words, alone = "".join(page.texts), set(page.texts)
    for path, methods in document["paths"].items():
        assert path in alone
        for told in methods.values():
            assert told["operationId"] in page.ids
            for parameter in told.get("parameters", ()):
                assert parameter["description"].replace("`", "") in words
    for name, schema in document["components"]["schemas"].items():
        assert f"type-{name}" in page.ids
        assert set(schema["properties"]) <= alone
    assert not page.tags & {"script", "style", "iframe", "img"}
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for link in page.links:
        assert link.removeprefix("#") in page.ids if link.startswith("#") else client.get(link).status_code == 200, link


def test_what_a_description_holds_is_text_on_the_page():
    document = {
        "openapi": "3.1.0",
        "info": {"title": "<b>", "version": "<i>", "description": "`a<b` & <script>"},
        "paths": {},
        "components": {"schemas": {}},
    }
    text = reference.page(document)
    assert "<script" not in text
    assert "<i>" not in text
    assert "<code>a&lt;b</code> &amp;" in text


def test_the_fixture_that_checks_answers_does_check_them(valkey, db):
    app = create_app(Config(redis_url=valkey.redis_url))
    description = hold_to_its_document(app)
    del description.document["paths"]["/api/v1/info"]["get"]["responses"]["200"]
    app.testing = True
    with pytest.raises(AssertionError, match="not said to answer 200"):
        app.test_client().get("/api/v1/info")


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"Host": "shop.example:8443", "X-Forwarded-Proto": "https"}, "https://shop.example:8443/api/v1/labels"),
        ({"Host": "[::1]:8090"}, "http://[::1]:8090/api/v1/labels"),
        ({"Host": "evil'; rm -rf ~"}, "http://127.0.0.1:8090/api/v1/labels"),
    ],
)
def test_the_examples_ask_the_server_where_the_reader_has_found_it(client, headers, shown):
    text = client.get("/docs", headers=headers).text
    assert f"curl -s &#x27;{shown}&#x27;" in text
    assert "rm -rf" not in text
