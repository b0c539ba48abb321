"""Events over HTTP: who may send them, what is a good one, and what a body may be. Kafka is in test_ingest_live.py."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import random
import time

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from connections.kafka import Brokers
from connections.settings import SettingsError
from schemas.events import OrderEvent
from schemas.jobs.shop import EVENTS_API, EVENTS_LETTERS
from schemas.mapping import SHIPPED, parse_mapping, shipped
from serving import Config, ConfigError, api_keys, create_app, keys
from serving.__main__ import main
from serving.api_keys import ApiKey
from serving.ingest.budget import Budget
from serving.ingest.check import check_events
from serving.ingest.deliveries import Deliveries, Failed, Outgoing, Placed, Unreachable
from serving.ingest.door import Unavailable
from serving.ingest.intake import KINDS, MAX_EVENT_BYTES, Intake, Refused, named_headers
from serving.ingest.routes import MOST_EVENTS, PATH
from serving.ingest.webhooks import HEADERS, Webhooks
from tests import foreign, strategies
from tests.build import HOUR, T0, block, click, order
from tests.described import hold_to_its_document
from transforms.decode import CLICKS, ORDERS, BlockDecoder
from transforms.letter_envelopes import cut_of, read_envelope

NOWHERE = {"events": "kafka://127.0.0.1:1", "registry": "http://127.0.0.1:1/none"}
READER, WRITER = (ApiKey(name, api_keys.sha256(name), frozenset([name])) for name in ("read", "write"))
SECRET = "hush-hush"


def body(*records: msgspec.Struct) -> bytes:
    return msgspec.json.encode(list(records))


def signed(raw: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), raw, hashlib.sha256).digest()).decode()


class Broker:
    """Stands for Kafka: takes, refuses or leaves open each record as its topic says."""

    def __init__(self, says=None):
        self.says, self.records = says or {}, []

    def send(self, records):
        if not records:
            return []
        says = [self.says.get(record.topic, Placed(0, 7)) for record in records]
        if Unreachable in says:
            raise Unreachable
        self.records += records
        return says


def opened(broker, **settings):
    """A client, held to the document, of an app whose door leads to this broker."""
    app = create_app(Config(**{**NOWHERE, **settings}))
    hold_to_its_document(app, keys="api_keys" in settings)
    door = app.extensions["streamforge.door"]
    door._schemas._ids = {kind.topic: 1 for kind in KINDS.values()}
    door._deliveries = broker
    return app.test_client()


@pytest.fixture
def serve(tmp_path):
    def make(webhooks: str = "", broker=None, **settings):
        if webhooks:
            (tmp_path / "webhooks").write_text(webhooks)
            settings["webhooks"] = str(tmp_path / "webhooks")
        return opened(broker or Broker(), **settings)

    return make


def send(client, raw: bytes, path: str = PATH, content_type: str = "application/json", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=raw, content_type=content_type, headers=named)


# What a body may be


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (msgspec.json.encode(order()), "application/json"),
        (b"\xef\xbb\xbf \n" + msgspec.json.encode(order()), "application/json; charset=utf-8"),
        (body(order()), "application/json"),
        (b"\n" + msgspec.json.encode(order()) + b"\r\n\n", "application/x-ndjson"),
        (msgspec.json.encode(order()), "application/jsonl"),
    ],
)
def test_one_event_an_array_or_lines_are_taken(serve, raw, content_type):
    answer = send(serve(), raw, content_type=content_type)
    assert (answer.status_code, answer.json["accepted"]) == (200, 1)
    assert answer.json["data"][0]["records"] == [{"topic": KINDS["orders"].topic, "partition": 0, "offset": 7}]


def test_each_event_has_its_answer_in_the_order_sent(serve):
    lines = [order("a"), "{", order("", amount=-1), click("c"), {"event_id": "x"}, 7]
    raw = b"\n".join(line.encode() if isinstance(line, str) else msgspec.json.encode(line) for line in lines)
    told = send(serve(), raw, content_type="application/x-ndjson").json
    assert [each["status"] for each in told["data"]] == ["accepted", *["refused"] * 2, "accepted", *["refused"] * 2]
    assert (told["count"], told["accepted"], told["refused"], told["ignored"]) == (6, 2, 4, 0)
    assert told["data"][2]["error"].count(";") == 2, "all that is wrong is said at once"
    assert [each.get("error_class") for each in told["data"][1:3]] == ["Undecodable", "InvalidRecordError"]


@pytest.mark.parametrize(
    ("raw", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[{},", "application/json", 400),
        (b"{},{}", "application/json", 400),
        (b"\n\n", "application/x-ndjson", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b"[" + b",".join([b"1"] * (MOST_EVENTS + 1)) + b"]", "application/json", 413),
        (b" " * (5 << 20), "application/json", 413),
    ],
)
def test_what_is_no_batch_of_events_is_refused_as_a_whole(serve, raw, content_type, status):
    assert send(serve(), raw, content_type=content_type).status_code == status


def test_a_compressed_body_is_not_mistaken_for_json(serve):
    assert send(serve(), b"\x1f\x8b", Content_Encoding="gzip").status_code == 415


def test_an_event_too_large_for_a_topic_costs_itself(serve):
    large = msgspec.json.encode(order(session_id="x" * MAX_EVENT_BYTES))
    told = send(serve(), b"[%b,%b]" % (large, msgspec.json.encode(order()))).json["data"]
    assert [each["status"] for each in told] == ["refused", "accepted"]
    assert told[0]["error_class"] == "TooLarge"


def test_an_event_too_large_for_the_dead_letters_is_not_said_to_be_there_and_need_not_be_sent_again(serve):
    broker = Broker()
    noise = base64.b64encode(random.Random(1).randbytes(1_300_000)).decode()
    answer = send(serve(broker=broker), msgspec.json.encode(order(session_id=noise)))
    [told] = answer.json["data"]
    assert (answer.status_code, told["status"], told["error_class"]) == (200, "refused", "TooLarge")
    assert not told.get("dead_letter", False)
    [letter] = broker.records
    assert cut_of(letter.value), "its beginning is there, for people"


@given(
    st.binary(max_size=300) | st.text(max_size=100).map(str.encode), st.sampled_from(["own", *SHIPPED]), st.booleans()
)
def test_no_body_makes_our_code_fail(raw, name, lines):
    client = _fuzzed()
    path = PATH if name == "own" else f"{PATH}/{name}"
    answer = client.post(path, data=raw, content_type="application/x-ndjson" if lines else "application/json")
    assert answer.status_code in (200, 400)
    assert not [each for each in answer.json.get("data", []) if each.get("error_class") == "UnexpectedError"]


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | strategies.texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strategies.texts, inner, max_size=3),
    max_leaves=6,
)


@given(st.data(), st.sampled_from(sorted(foreign.SOURCES)), st.integers(0, 30))
def test_no_change_of_a_real_message_makes_our_code_fail(data, name, seed):
    message = dict(foreign.stream(name, 1, seed)[0].message)
    for _ in range(data.draw(st.integers(0, 4))):
        inside = message
        while isinstance(inside, dict) and inside:
            key = data.draw(st.sampled_from(sorted(inside, key=str)))
            if not isinstance(inside[key], dict) or data.draw(st.booleans()):
                inside[key] = data.draw(_values)
                break
            inside = inside[key]
    raw = json.dumps(message).encode()
    told = _fuzzed().post(f"{PATH}/{name}", data=raw, content_type="application/json")
    assert told.status_code in (200, 400)  # 400: NaN is no JSON
    assert not [each for each in told.json.get("data", []) if each.get("error_class") == "UnexpectedError"], raw


@functools.cache
def _fuzzed():
    """Made once, as hypothesis asks many times."""
    return opened(Broker(), mappings=SHIPPED, event_rate="100000000/second")


# What is a good event


@given(strategies.orders | strategies.clicks | st.builds(order, strategies.texts) | st.builds(click, strategies.texts))
def test_an_event_is_judged_as_a_job_judges_it_word_for_word(record):
    raw = msgspec.json.encode(record)
    _same_as_the_jobs(raw, ORDERS if isinstance(record, OrderEvent) else CLICKS)


@pytest.mark.parametrize(
    "changes",
    [{"currency": "try"}, {"event_time": T0 // 1000}, {"items": [{}]}, {"order_status": "NEW"}, {"user_id": 5}],
)
def test_what_is_wrong_is_said_in_the_words_of_a_dead_letter(changes):
    _same_as_the_jobs(msgspec.json.encode(msgspec.to_builtins(order()) | changes), ORDERS)
    _same_as_the_jobs(json.dumps({"order_id": "o-1", **changes}).encode(), ORDERS)


def _same_as_the_jobs(raw, kind, name=None, headers=None):
    """The door accepts what the job does, and gives the same reasons for what it refuses."""
    mapped = None if name is None else parse_mapping(shipped(name)).of(kind.record)
    decoder = BlockDecoder(kind, "job", lambda _: {}, 1 << 60, wanted="json", mapped=mapped)
    given_headers = [(key, value.encode()) for key, value in (headers or {}).items()]
    taken = block([raw], times_ms=[T0], headers={0: given_headers} if headers else {})
    done = decoder.decode(taken)
    intake = Intake(None if name is None else shipped(name))
    if done.bad:
        with pytest.raises(Refused) as e:
            intake.read(raw, headers or {}, T0, lambda _, r: r)
        [bad] = done.bad
        found = (e.value.stage, e.value.error_class, str(e.value)[:1000])
        assert found == (bad.stage, bad.error_class, bad.error_message)
    else:
        assert [each.value for each in intake.read(raw, headers or {}, T0, lambda _, r: r)] == done.records


@pytest.mark.parametrize("name", ["shopify", "woocommerce"])
def test_a_mapped_event_is_judged_as_a_job_judges_it(name):
    accepted = 0
    for each in foreign.stream(name, 60):
        headers = {key.lower(): value for key, value in each.headers.items()}
        kept = {key: headers[key] for key in named_headers(shipped(name)) if key in headers}
        _same_as_the_jobs(msgspec.json.encode(each.message), ORDERS, name, kept)
        accepted += each.order is not None
    assert accepted > 30


def test_an_event_that_is_an_order_and_a_click_is_taken_whole_or_not_at_all(serve, tmp_path):
    both = {
        "version": 1,
        "orders": {
            "when": {"kind": "buy"},
            "fields": {
                "order_id": "id",
                "user_id": "user",
                "order_status": {"const": "CREATED"},
                "currency": {"const": "TRY"},
                "total_amount_minor": {"minor": "total"},
                "event_time": {"time": "at"},
            },
        },
        "clicks": {
            "fields": {
                "event_id": "id",
                "user_id": "user",
                "event_type": {"const": "PURCHASE"},
                "event_time": {"time": "at"},
            },
        },
    }
    (tmp_path / "both.yaml").write_text(json.dumps(both))
    client = serve(mappings=(str(tmp_path / "both.yaml"),))

    def told(**changes):
        message = {"kind": "buy", "id": "1", "user": "u", "total": 5, "at": T0} | changes
        return send(client, json.dumps(message).encode(), f"{PATH}/both").json["data"][0]

    topics = [each["topic"] for each in told()["records"]]
    assert topics == [KINDS["orders"].topic, KINDS["clicks"].topic]
    assert [each["topic"] for each in told(kind="look")["records"]] == [KINDS["clicks"].topic]
    assert told(total="much")["status"] == "refused"


def test_a_mapping_sees_the_headers_that_it_names_and_no_others():
    assert named_headers(shipped("shopify")) == ("x-shopify-topic",)
    assert named_headers("a: $header.X-Api-Key\nb: $header.Authorization") == ()


def test_an_hour_ahead_is_by_the_clock_of_the_server():
    read = Intake(None).read
    assert read(msgspec.json.encode(order(at=T0 + HOUR)), {}, T0, lambda *_: b"")
    with pytest.raises(Refused, match="more than 1 h after"):
        read(msgspec.json.encode(order(at=T0 + HOUR + 1)), {}, T0, lambda *_: b"")


# What became of it


ORDERS_TOPIC = KINDS["orders"].topic
LOST, NOT_TAKEN = Failed("timed out", of_the_record=False), Failed("too large", of_the_record=True)
ORDER, CLICK, BAD = order("a"), click("c"), {"order_id": ""}


@pytest.mark.parametrize(
    ("topics", "status", "fates", "kept"),
    [
        ({}, 200, ["accepted", "accepted", "refused"], [True]),
        ({ORDERS_TOPIC: LOST}, 503, ["unknown", "accepted", "refused"], [True]),
        ({ORDERS_TOPIC: NOT_TAKEN}, 200, ["refused", "accepted", "refused"], [True, True]),
        ({EVENTS_LETTERS: LOST}, 503, ["accepted", "accepted", "refused"], [False]),
        ({EVENTS_LETTERS: Unreachable}, 503, ["accepted", "accepted", "refused"], [False]),
        ({ORDERS_TOPIC: Unreachable}, 503, [], []),
    ],
)
def test_a_200_is_a_promise_and_anything_less_a_503_that_says_what_became_of_each(topics, status, fates, kept):
    answer = send(opened(Broker(topics)), msgspec.json.encode([ORDER, CLICK, BAD]))
    assert answer.status_code == status
    told = answer.json.get("data", [])
    assert [each["status"] for each in told] == fates
    assert [each.get("dead_letter", False) for each in told if each["status"] == "refused"] == kept
    assert ("Retry-After" in answer.headers) is (status == 503)


def test_a_broken_file_of_settings_is_a_kafka_that_cannot_be_reached(tmp_path):
    deliveries = Deliveries(Brokers("127.0.0.1:1", str(tmp_path / "gone")), pause_s=1)
    with pytest.raises(Unreachable):
        deliveries.send([Outgoing(ORDERS_TOPIC, b"k", b"v", T0)])


def test_a_producer_that_cannot_go_on_is_replaced_and_its_successor_is_not():
    """As produce() says it: with the code, but without the flag that callbacks have."""
    deliveries = Deliveries("127.0.0.1:1", pause_s=0, delivery_s=0.2)
    former = deliveries._open()

    class Fatal:
        def produce(self, *_, **__):
            raise KafkaException(KafkaError(KafkaError._FATAL))

    settled = []
    deliveries._producer = broken = Fatal()
    deliveries._produce(broken, Outgoing(ORDERS_TOPIC, b"k", b"v", T0), settled.append)
    assert [type(each) for each in settled] == [Failed]
    successor = deliveries._open()
    assert successor not in (broken, former)
    deliveries._produce(broken, Outgoing(ORDERS_TOPIC, b"k", b"v", T0), settled.append)
    assert deliveries._open() is successor
    deliveries._producer = None


def test_a_broker_that_is_not_there_costs_the_deadline_once_and_then_nothing():
    deliveries = Deliveries("127.0.0.1:1", pause_s=60, delivery_s=0.2)
    [outcome] = deliveries.send([Outgoing(ORDERS_TOPIC, b"k", b"v", T0)])
    assert isinstance(outcome, Failed)
    assert not outcome.of_the_record
    with pytest.raises(Unreachable):
        deliveries.send([Outgoing(ORDERS_TOPIC, b"k", b"v", T0)])


def test_a_topic_that_takes_nothing_does_not_close_the_others():
    """As one of which the API has no right to write, or that is not there."""
    deliveries = Deliveries("127.0.0.1:1", pause_s=60, delivery_s=0.2)
    deliveries.send([Outgoing(EVENTS_LETTERS, b"k", b"v", T0)])
    with pytest.raises(Unreachable):
        deliveries.send([Outgoing(ORDERS_TOPIC, b"k", b"v", T0), Outgoing(EVENTS_LETTERS, b"k", b"v", T0)])
    [outcome] = deliveries.send([Outgoing(ORDERS_TOPIC, b"k", b"v", T0)])
    assert isinstance(outcome, Failed), "it was tried"


def test_a_record_is_stamped_with_its_event_time_and_never_ahead_of_the_clock():
    broker = Broker()
    now = time.time_ns() // 1_000_000
    told = send(opened(broker), body(order("past", at=T0), order("ahead", at=now + HOUR // 2))).json
    assert told["accepted"] == 2
    past, ahead = (record.timestamp_ms for record in broker.records)
    assert past == T0
    assert now <= ahead <= time.time_ns() // 1_000_000


def test_a_letter_has_the_event_as_it_came_and_is_the_same_each_time():
    broker = Broker()
    client = opened(broker)
    raw = b'{"order_id":  "\xc3\xbc"}'
    for _ in range(2):
        assert send(client, raw).json["refused"] == 1
    one, other = (read_envelope(record.value) for record in broker.records)
    assert one.payload == raw
    assert (one.topic, one.job, one.stage, one.attempts) == (PATH, EVENTS_API, "decode", 1)
    assert (one.topic, one.partition, one.offset) == (other.topic, other.partition, other.offset)
    assert {record.topic for record in broker.records} == {EVENTS_LETTERS}


# Who may send


def test_without_the_flag_there_is_no_such_address():
    client = create_app(Config()).test_client()
    assert send(client, body(order())).status_code == 404
    assert PATH not in client.get("/openapi.json").json["paths"]


def test_a_key_writes_or_reads_as_it_says(serve):
    client = serve(api_keys=(READER, WRITER))
    assert [send(client, body(order()), X_API_Key=key).status_code for key in ("read", "write", "x")] == [403, 200, 401]
    assert send(client, body(order())).status_code == 401
    asked = [client.get("/api/v1/info", headers={"X-API-Key": key}).status_code for key in ("read", "write")]
    assert asked == [200, 403]


@pytest.mark.parametrize(
    ("flags", "scopes"),
    [([], {"read"}), (["--scope=write"], {"write"}), (["--scope=read", "--scope=write"], {"read", "write"})],
)
def test_a_made_key_has_the_scopes_that_were_asked_for(capsys, flags, scopes):
    keys.main(["new", "ann", *flags])
    key, line = capsys.readouterr().out.splitlines()
    [made] = api_keys.read(line)
    assert made == ApiKey("ann", api_keys.sha256(key), frozenset(scopes))


@pytest.mark.parametrize("scopes", [":", ":admin", ":read,write", ":read+", ":write+read+admin"])
def test_other_scopes_are_refused(scopes):
    with pytest.raises(api_keys.InvalidKeys):
        api_keys.read(f"ann:{'a' * 64}{scopes}")


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_a_signed_request_needs_no_key_and_a_wrong_signature_does_not_pass(serve, name):
    client = serve(f"{name}.secret={SECRET}\n", mappings=(name,), api_keys=(WRITER,))
    [event, *_] = [each for each in foreign.stream(name, 9) if each.order]
    raw, path, header = msgspec.json.encode(event.message), f"{PATH}/{name}", HEADERS[name]

    def status(signature, raw=raw, **more):
        return client.post(
            path, data=raw, content_type="application/json", headers={**event.headers, header: signature, **more}
        ).status_code

    assert status(signed(raw)) == 200
    wrong = [
        "",
        "ü",
        signed(raw, "other"),
        signed(raw + b" "),
        signed(raw)[:-1],
        signed(raw) + "x",
        signed(raw).lower(),
    ]
    assert [status(each) for each in wrong] == [401] * len(wrong)
    assert status(signed(raw), raw + b" ") == 401
    assert status("wrong", **{"X-API-Key": "write"}) == 401, "also beside a right key"
    assert send(client, raw, path, X_API_Key="write").status_code == 200, "a key will do, too"
    assert send(client, raw, path).status_code == 401
    assert send(client, raw, PATH, **{header: signed(raw)}).status_code == 401, "of that mapping alone"


def test_a_secret_without_keys_still_has_to_sign(serve):
    client = serve(f"shopify.secret={SECRET}\n", mappings=("shopify", "segment"))
    assert send(client, b"{}", f"{PATH}/shopify").status_code == 401
    assert send(client, b"{}", f"{PATH}/segment").status_code == 200


def test_woocommerce_asks_whether_there_is_somebody_before_it_signs(serve):
    client = serve(f"woocommerce.secret={SECRET}\nshopify.secret={SECRET}\n", mappings=("woocommerce", "shopify"))
    ping = {"raw": b"webhook_id=7", "content_type": "application/x-www-form-urlencoded"}
    answer = send(client, path=f"{PATH}/woocommerce", **ping)
    assert (answer.status_code, answer.json["count"]) == (200, 0)
    assert send(client, path=f"{PATH}/shopify", **ping).status_code == 401
    assert send(client, b"webhook_id=7&a=b", f"{PATH}/woocommerce").status_code == 401


def test_an_old_secret_and_a_header_of_its_own(serve, tmp_path):
    (tmp_path / "new").write_text("new\n")
    (tmp_path / "ours.yaml").write_text(shipped("shopify"))
    said = f"ours.secret=${{file:{tmp_path}/new}}\nours.secret.previous=old\nours.header=X-Signed\n"
    client = serve(said, mappings=(str(tmp_path / "ours.yaml"),))
    statuses = [send(client, b"{}", f"{PATH}/ours", X_Signed=signed(b"{}", s)).status_code for s in ("new", "old", "x")]
    assert statuses == [200, 200, 401]


def test_a_secret_that_changes_is_taken_up(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("connections.settings.Watch.__init__.__defaults__", (lambda: now[0],))
    file, secret = tmp_path / "webhooks", tmp_path / "secret"
    secret.write_text("one")
    file.write_text(f"shopify.secret=${{file:{secret}}}")
    webhooks = Webhooks(str(file), ["shopify"])
    secret.write_text("two")
    assert webhooks.is_right("shopify", signed(b"x", "one"), b"x")
    now[0] = 11.0
    assert webhooks.header("shopify") == HEADERS["shopify"]
    assert [webhooks.is_right("shopify", signed(b"x", s), b"x") for s in ("one", "two")] == [False, True]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("shopify.secret=", "is missing, or a secret is empty"),
        ("shopify.header=X", "is missing, or a secret is empty"),
        ("shopify.password=hush-hush", "is none of"),
        ("shopfy.secret=hush-hush", "no --mapping"),
        ("segment.secret=hush-hush", "which header"),
        ("shopify.secret=${env:NO_SUCH_VARIABLE}", "is not set"),
        ("hush-hush", "is not name=value"),
    ],
)
def test_a_file_of_secrets_that_cannot_be_used_ends_the_start_without_showing_them(tmp_path, said, why, capsys):
    (tmp_path / "webhooks").write_text(said)
    with pytest.raises(SettingsError, match=why) as e:
        Webhooks(str(tmp_path / "webhooks"), ["shopify", "segment"])
    assert "hush" not in str(e.value)
    flags = ["--events=kafka://127.0.0.1:1", "--mapping=shopify", "--mapping=segment"]
    assert main([*flags, f"--webhooks={tmp_path}/webhooks", "--redis=redis://127.0.0.1:1"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "--webhooks" in err


def test_a_server_that_strangers_reach_takes_events_with_keys_alone(capsys):
    check_events(Config(**NOWHERE), "127.0.0.1")
    check_events(Config(**NOWHERE, api_keys=(READER,)), "0.0.0.0")
    with pytest.raises(ConfigError, match="anybody could send events"):
        check_events(Config(**NOWHERE), "0.0.0.0")
    assert main(["--mapping=shopify"]) == 2
    assert "--mapping needs --events" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--events=127.0.0.1:9092", "kafka://host:port"),
        ("--events=kafka://user:s3cr3t@h:1", "kafka://"),
        ("--mapping=shopfy", "cannot be read"),
        ("--mapping=setup.py", "setup"),
        ("--registry=nowhere", "nowhere"),
        ("--event_rate=many", "event_rate must be"),
    ],
)
def test_a_wrong_flag_is_named_in_one_line(capsys, flag, why):
    with pytest.raises(SystemExit) as end:
        main([flag])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert why in err
    assert "s3cr3t" not in err


# How many


def test_a_caller_is_held_to_a_rate_of_events_and_others_are_not(serve):
    other = ApiKey("other", api_keys.sha256("other"), frozenset(["write"]))
    client = serve(api_keys=(WRITER, other), event_rate="5/hour")
    batch = body(*[order(f"o-{n}") for n in range(4)])
    assert [send(client, batch, X_API_Key="write").status_code for _ in range(3)] == [200, 200, 429]
    again = send(client, batch, X_API_Key="write")
    assert 1 <= int(again.headers["Retry-After"]) <= 4 * 3600
    assert send(client, batch, X_API_Key="other").status_code == 200


def test_a_budget_fills_again_and_a_batch_that_exceeds_it_is_paid_off():
    now = [0.0]
    budget = Budget(10, 1, clock=lambda: now[0])
    assert budget.spend("a", 25) == 0
    assert budget.spend("a", 1) == pytest.approx(1.6)
    now[0] = 1.6
    assert budget.spend("a", 1) == 0
    now[0] = 1000.0
    assert [budget.spend("a", 10), budget.spend("a", 1) > 0] == [0, True]


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), max_size=40))
def test_over_time_nobody_sends_more_than_the_rate_and_one_batch(asked):
    now, sent, budget = 0.0, 0, Budget(10, 1, clock=lambda: now)
    for pause_s, events in asked:
        now += pause_s
        wait_s = budget.spend("a", events)
        sent += 0 if wait_s else events
        assert sent <= 10 * (now + 1) + 40
        assert wait_s <= 4.1


def test_callers_that_are_forgotten_do_not_pile_up():
    budget = Budget(10, 1, clock=lambda: 0.0)
    for n in range(10_050):
        budget.spend(str(n), 1)
    assert len(budget._left) == 10_000


def test_while_the_registry_is_away_nothing_is_taken_and_the_answer_comes_at_once():
    app = create_app(Config(**NOWHERE))
    hold_to_its_document(app)
    answer = send(app.test_client(), body(order()))
    assert answer.status_code == 503
    assert "nothing was sent" in answer.json["error"]
    assert int(answer.headers["Retry-After"]) >= 1
    with pytest.raises(Unavailable):
        app.extensions["streamforge.door"].take(None, PATH, [b"{}"], {})
