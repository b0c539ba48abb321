"""What people write (rules, mappings, settings, URLs, labels), what the tools read back, and what clients ask.

Each parser reads its input or refuses it by its own error, in words that a terminal can show.
"""

from __future__ import annotations

import contextlib
import json
import random
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec
import yaml

from beam_pipelines.letter_text import Newest, Payloads, as_json, as_text
from beam_pipelines.options import input_url
from connections import settings as properties
from connections.settings import SettingsError
from schemas import codec
from schemas.addresses import Address, StoreUrl
from schemas.events import ClickstreamEvent, OrderEvent, avro_schema
from schemas.mapping import SHIPPED, Envelope, MappingError, NotMappable, parse_mapping, shipped
from serving import query
from serving.decisions.ruleset import rule_set
from serving.query import InvalidQuery
from tests import foreign
from tests.build import T0, order, payload
from tests.fuzz.making import changed, headers, noise, spoilt, spoilt_text
from transforms.domain.done_offsets import DoneOffsets
from transforms.domain.labels import LabelError, parse_labels
from transforms.domain.rule_text import RuleError
from transforms.errors import BadRecord
from transforms.io.dead_letters import Letter, _parse
from transforms.letter_envelopes import LEAST_LIMIT, NO_LIMIT, envelopes

__all__ = ["labels", "letters", "mappings", "requests", "rules", "settings", "urls"]

ROOT = Path(__file__).parents[2]
YAML = [
    *("!!map [a]", "!!int ''", "!!bool x", "!!timestamp x", "!!set {a}", "!!python/object:x.Y {}", "? [a, b]", "- -"),
    *("&a", "*a", "<<: *a", "{", "]", "~", "1e999", ".nan", "0x7fffffffffffffffff", "2026-99-99", "'", "|", "\t", "%A"),
    *("version: 2", "rules:", "kind: sum", "where:", "all:", "not:", "above: {EUR: 1, 7: 2}", "within: 99999999999h"),
    *("fields:", "const:", "each: a[b=c].d", "first: [a, b]", "money: $.x", "zone: Mars/Base", "7: x", "[[[[[[[["),
]


def rules(rng: random.Random) -> None:
    text = spoilt_text(rng, rng.choice(_rules()), YAML)
    try:
        found = rule_set(text)
    except RuleError as e:
        _shown(str(e))
    else:
        assert rule_set(text) == found


@cache
def _rules() -> list[str]:
    """A file for each rule: reading YAML takes as long as it is."""
    shipped_rules = files("transforms.domain").joinpath("fraud_rules.yaml").read_text(encoding="utf-8")
    whole = [
        yaml.safe_load(text) for text in (shipped_rules, (ROOT / "docs" / "rules-example.yaml").read_text("utf-8"))
    ]
    return [yaml.safe_dump(each | {"rules": {name: rule}}) for each in whole for name, rule in each["rules"].items()]


def mappings(rng: random.Random) -> None:
    name = rng.choice(SHIPPED)
    try:
        found = parse_mapping(spoilt_text(rng, shipped(name), YAML))
        mapped = found.of(rng.choice([OrderEvent, ClickstreamEvent]))
    except MappingError as e:
        return _shown(str(e))
    envelope = Envelope({"x-shopify-topic": "orders/create"}, None, "t", T0)
    source = name if name in foreign.SOURCES else "ga4"
    for _ in range(4):
        message = foreign.stream(source, 1, rng.randrange(256))[0].message
        with contextlib.suppress(NotMappable):
            mapped(changed(rng, message), envelope)
    return None


def settings(rng: random.Random) -> None:
    text = (
        "security.protocol=SASL_SSL\nsasl.mechanism : SCRAM-SHA-512\n! a\nsasl.password=${file:/run/x}\na\\:b c\\\n d\n"
        "ssl.ca.pem=-----BEGIN\\n\\u0041\\\n  x\n"
    )
    words = ["\\", "\\u", "\\u12", "=", ":", "#", "\x85", "\u2028", "${env:X}", "${file:", "a=b", "\\ud800", "\\\\\\"]
    try:
        found = properties.parse(spoilt_text(rng, text, words), "x")
        for name, value in found.items():
            if "${" not in value:
                assert properties.resolve(value, name) == value
            properties.hide(f"{name}: {value}", found)
    except SettingsError as e:
        _shown(str(e))


def urls(rng: random.Random) -> None:
    texts = [
        *("redis://u:hush@h:6379/1?ssl_ca_certs=/x", "rediss+cluster://[::1]:1,h:2", "redis+sentinel://h:1,h:2/shop/1"),
        *("http://u:hush@h:8081/x?y#z", "kafka://h:9092,g:1/topic", "gs://bucket/a/*.avro", "a/b[0-9].jsonl"),
    ]
    text = spoilt(rng, rng.choice(texts).encode()).decode(errors=rng.choice(["replace", "surrogateescape"]))
    for read in (Address, StoreUrl, input_url):
        try:
            found = read(text)
        except ValueError as e:
            _shown(str(e))
        else:
            if isinstance(found, Address):
                words = f"{found!r} {found} {found.hide(text)}"
                assert not found.user or found.user not in words, words
                assert found.servers if isinstance(found, StoreUrl) else found.host


def labels(rng: random.Random) -> None:
    csv = 'user;order_id;kind\nu;o-1;x\nu;"o\n2";y\n'
    lines = '{"order_id":"o-1","kind":"fraud"}\n{"order_id":"o-2"}\n'
    words = ['"', ";", ",", "\t", "\0", "\r", '{"order_id":', "[" * 3_000, "order_id", "\ufeff", "x" * 200_000]
    try:
        assert parse_labels(spoilt_text(rng, rng.choice([csv, lines]), words))
    except LabelError as e:
        _shown(str(e))


def letters(rng: random.Random) -> None:
    """What `dead_letters` reads: envelopes, which anybody who may write to the topic can make, and its own memory."""
    good = BadRecord(
        payload=rng.choice(
            [None, b"", b"x" * 60_000, rng.randbytes(40_000), b"\0\0\0\0\1", b'{"a":[1e999]}', noise(rng)]
        ),
        job="j",
        stage="decode",
        error_class="Undecodable",
        error_message=rng.choice(["x", "\x1b[2J", "ü" * 9_000]),
        topic=rng.choice(["t", "../x", "a/b.jsonl"]),
        partition=rng.choice([0, -1, (1 << 31) - 1]),
        offset=rng.choice([0, (1 << 63) - 1]),
        timestamp=rng.choice([T0, -1, 1 << 62]),
        key=rng.choice([None, b"\xff"]),
        headers=headers(rng),
        schema_id=rng.choice([None, 1]),
        attempts=rng.choice([1, 5, 1 << 33]),
        seen_at=rng.choice([T0, -(1 << 62)]),
    )
    written = list(envelopes(good, rng.choice([LEAST_LIMIT, NO_LIMIT])))
    assert len(written[-1]) <= LEAST_LIMIT
    for whole in written[:-1]:
        assert _parse(whole) == (good, None)
    envelope = written[rng.randrange(len(written))]
    if rng.random() < 0.5:
        envelope = json.dumps(changed(rng, json.loads(envelope))).encode()
    record, cut = _parse(spoilt(rng, envelope))
    letter = Letter(0, 0, envelope, record, cut)
    payloads = _payloads()
    newest = Newest(1)
    newest.add(letter)
    text = as_text(newest.letters()[0], payloads)
    assert all(line.isprintable() for line in text.split("\n")), text
    msgspec.json.encode(as_json(letter, payloads))
    memory = DoneOffsets(0, 0)
    for _ in range(rng.randrange(20)):
        memory.add(rng.randrange(2_000))
    said = spoilt(rng, (memory.metadata() or "").encode()).decode(errors="replace")
    with contextlib.suppress(ValueError):
        done = DoneOffsets.restore(rng.choice([memory.first_open, -1, 1 << 40]), said, rng.randrange(9), 2_000)
        assert DoneOffsets.restore(done.first_open, done.metadata(), 0, 1 << 40).first_open == done.first_open


@cache
def _payloads() -> Payloads:
    """Without a registry, as after its first silence; one schema is known."""
    payloads = Payloads(Address("http://127.0.0.1:1"), lambda _: None)
    payloads._gone, payloads._schemas = True, {1: codec.Writer(avro_schema("OrderEvent"))}
    assert payloads.fields(payload(order(), 1)) is not None
    return payloads


def requests(rng: random.Random) -> None:
    """Every parameter of the API, and cursors there and back."""
    at = query.Position(rng.choice([0, T0, 253_402_300_799_999]), rng.choice(["o-1", "", "ü😀" * 40, "a/b\x00"]))
    cursor = query.cursor_text(at)
    assert query._cursor(cursor) == at
    texts = [
        *(
            cursor,
            "2026-11-22T10:00:00Z",
            "9999-12-31T23:59:59.9999999-23:59",
            "0001-01-01t00:00:00+23:59",
            "٣",
            "1" * 5_000,
        ),
        *("2026-11-22", "alert,revenue", "EUR", "1790000000000-0", "true", "100", "RAPID_ORDERS", "u-1", ".."),
    ]
    for parameter in PARAMETERS:
        text = spoilt(rng, rng.choice(texts).encode()).decode(errors=rng.choice(["replace", "surrogateescape"]))
        try:
            value = parameter.read(text)
        except InvalidQuery as e:
            _shown(str(e))
        else:
            if parameter is query.CURSOR:
                assert query._cursor(query.cursor_text(value)) == value
    given = {rng.choice(["limit", "cursor", "x", ""]): [rng.choice(texts)] * rng.randrange(3)}
    with contextlib.suppress(InvalidQuery):
        query.read({each.name: each for each in query.LISTING}, given)


PARAMETERS = [value for value in vars(query).values() if isinstance(value, query.Parameter)]


def _shown(words: str) -> None:
    assert words
    assert "\n" not in words, words
    words.encode()
