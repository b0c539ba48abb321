"""The benchmark's data set is the same everywhere, valid, and has something for every rule to find."""

import io
from collections import Counter

import fastavro
import numpy as np

from bench.orders import ARRIVAL_SPREAD_MS, FIRST_EVENT_MS, HIGH_VALUE_MINOR, Encoder, Spec, generate
from schemas.codec import Decoder, parse_schema
from schemas.events import OrderEvent, avro_schema

SMALL = Spec(orders=5_000, users=500, rate=10)


def decoded(spec: Spec) -> list[OrderEvent]:
    decoder = Decoder(OrderEvent, lambda _: avro_schema("OrderEvent"))
    return [decoder.decode(payload) for _, payload, _ in Encoder(generate(spec), writer_id=7).messages()]


def test_the_same_spec_gives_the_same_bytes():
    first, second = (list(Encoder(generate(SMALL), 1).messages()) for _ in range(2))
    assert first == second
    assert first != list(Encoder(generate(Spec(5_000, 500, 10, seed=2)), 1).messages())


def test_payloads_decode_to_the_typed_records_and_carry_key_and_time():
    events = list(generate(SMALL).events())
    assert decoded(SMALL) == events
    messages = list(Encoder(generate(SMALL), 7).messages())
    assert [key.decode() for key, _, _ in messages] == [event.user_id for event in events]
    assert [timestamp for _, _, timestamp in messages] == [event.event_time for event in events]


def test_chunks_of_messages_are_the_whole():
    encoder = Encoder(generate(SMALL), 7)
    chunks = [m for start in range(0, 5_000, 999) for m in encoder.messages(start, min(start + 999, 5_000))]
    assert chunks == list(encoder.messages())


def test_every_record_is_valid():
    for event in decoded(SMALL):
        assert event.order_id
        assert event.user_id
        assert 1 <= len(event.items) <= 3
        assert all(i.quantity >= 1 and i.total_price_minor == i.quantity * i.unit_price_minor for i in event.items)
        assert event.subtotal_minor == sum(item.total_price_minor for item in event.items)
        assert event.total_amount_minor == event.subtotal_minor - event.discount_minor + event.shipping_minor > 0
        assert event.currency == "TRY"
        assert event.event_time >= FIRST_EVENT_MS


def test_orders_have_the_shares_that_the_workloads_rely_on():
    events = decoded(Spec(orders=20_000, users=2_000))
    statuses = Counter(event.order_status for event in events)
    assert 0.85 < statuses["CREATED"] / len(events) < 0.92
    assert set(statuses) == {"CREATED", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED", "REFUNDED"}
    high = sum(event.total_amount_minor > HIGH_VALUE_MINOR for event in events)
    assert 0.04 < high / len(events) < 0.07
    assert any(event.total_amount_minor == HIGH_VALUE_MINOR for event in events)
    assert 3 <= len({event.shipping_region for event in events}) <= 8


def test_arrivals_are_shuffled_within_two_seconds():
    times = generate(SMALL).event_time_ms
    behind = np.maximum.accumulate(times) - times
    assert 0 < behind.max() < ARRIVAL_SPREAD_MS


def test_an_order_enters_a_status_once_unless_duplicates_are_asked_for():
    keys = Counter((event.order_id, event.order_status) for event in decoded(SMALL))
    assert set(keys.values()) == {1}
    repeated = Counter((e.order_id, e.order_status) for e in decoded(Spec(5_000, 500, 10, duplicates=100)))
    assert sum(repeated.values()) == 5_100
    assert Counter(repeated.values()) == {1: 4_900, 2: 100}


def test_first_orders_are_the_first_of_their_user():
    events = sorted(decoded(SMALL), key=lambda e: (e.event_time, e.order_id))
    seen: set[str] = set()
    firsts = 0
    for event in events:
        if event.order_status == "CREATED":
            if event.is_first_order:
                firsts += 1
                assert event.user_id not in seen
            seen.add(event.user_id)
        else:
            assert not event.is_first_order
    assert firsts > 10


def test_a_new_field_with_a_default_needs_nothing_here(monkeypatch):
    schema = avro_schema("OrderEvent")
    schema["fields"].append({"name": "channel", "type": "string", "default": "web"})
    monkeypatch.setattr("bench.orders.avro_schema", lambda _: schema)
    (_, payload, _), *_ = Encoder(generate(Spec(10, 10, 10)), 7).messages()
    assert fastavro.schemaless_reader(io.BytesIO(payload[5:]), parse_schema(schema), None)["channel"] == "web"
