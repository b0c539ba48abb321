"""Every kind of poison is there, and each is refused by the decoder or breaks a validity rule.

The rules are written out here from the definition of valid records, not taken from the pipeline.
"""

import re
from collections import Counter, defaultdict

import pytest

from schemas.codec import CodecError, Decoder, UnknownSchema, from_json
from schemas.events import ClickstreamEvent, OrderEvent, avro_schema
from simulator.arrival import arrivals
from simulator.config import CLICKS, INVENTORY, ORDERS, RECORDS, TOPICS, Config, Event
from simulator.wire import Framed, JsonLines, Records

IDS = {topic: 11 + i for i, topic in enumerate(TOPICS)}
HOUR = 3_600_000
POISONED = Config(events=30_000, bad_share=0.3, topics=(CLICKS, ORDERS))

IN_A_RECORD = {"negative_amount", "quantity_below_1", "empty_user_id", "time_not_positive", "time_in_future"}
BY_TOPIC = {ORDERS: {"empty_order_id", "bad_currency"}, CLICKS: {"empty_event_id"}}
IN_FRAMES = {
    "truncated",
    "unknown_schema_id",
    "wrong_magic_byte",
    "wrong_types",
    "other_schema",
    "invalid_utf8",
    "empty_payload",
    "null_payload",
}
IN_LINES = {"truncated", "wrong_types", "missing_field", "invalid_utf8", "not_json", "null_payload"}


def broken_rule(record: OrderEvent | ClickstreamEvent, record_time_ms: int) -> str | None:
    """Which rule of a valid record it breaks; None: it is valid."""
    identifier, amounts, quantities = identity_and_numbers(record)
    if not identifier or not record.user_id:
        return "empty id"
    if any(amount < 0 for amount in amounts):
        return "negative amount"
    if any(quantity < 1 for quantity in quantities):
        return "quantity"
    if isinstance(record, OrderEvent) and not re.fullmatch("[A-Z]{3}", record.currency):
        return "currency"
    if record.event_time <= 0 or record.event_time > record_time_ms + HOUR:
        return "time"
    return None


def identity_and_numbers(record: OrderEvent | ClickstreamEvent) -> tuple[str, list[int], list[int]]:
    if isinstance(record, ClickstreamEvent):
        amounts = [] if record.price_minor is None else [record.price_minor]
        return record.event_id, amounts, [] if record.quantity is None else [record.quantity]
    amounts = [record.subtotal_minor, record.discount_minor, record.shipping_minor, record.total_amount_minor]
    amounts += [amount for item in record.items for amount in (item.unit_price_minor, item.total_price_minor)]
    return record.order_id, amounts, [item.quantity for item in record.items]


def fetch(schema_id: int) -> dict:
    for topic, known in IDS.items():
        if known == schema_id:
            return avro_schema(RECORDS[topic].__name__)
    raise UnknownSchema(f"no schema {schema_id}")


DECODERS = {topic: Decoder(RECORDS[topic], fetch) for topic in (CLICKS, ORDERS)}


def verdict_framed(event: Event, wire: Framed) -> str | None:
    payload = event.payload if event.record is None else wire.encode(event.topic, event.record)
    try:
        record = DECODERS[event.topic].decode(payload)
    except CodecError as e:
        return type(e).__name__
    return broken_rule(record, event.timestamp_ms)


def verdict_line(event: Event, wire: JsonLines, clock_ms: int) -> str | None:
    line = event.payload if event.record is None else wire.encode(event.topic, event.record)
    assert b"\n" not in line
    try:
        record = from_json(line, RECORDS[event.topic])
    except CodecError as e:
        return type(e).__name__
    return broken_rule(record, clock_ms)


def test_every_framed_kind_is_there_and_refused_and_everything_else_is_valid() -> None:
    wire = Framed(IDS)
    verdicts = defaultdict(Counter)
    for event in arrivals(POISONED, wire):
        verdict = verdict_framed(event, wire)
        if event.kind == "bad":
            verdicts[event.topic, event.truth[0]["reason"]][verdict] += 1
        else:
            assert verdict is None

    assert not [key for key, counts in verdicts.items() if counts[None]]
    for topic in (CLICKS, ORDERS):
        reasons = {reason for of_topic, reason in verdicts if of_topic == topic}
        assert reasons == IN_A_RECORD | BY_TOPIC[topic] | IN_FRAMES
    assert set(verdicts[ORDERS, "unknown_schema_id"]) == {"UnknownSchema"}
    assert set(verdicts[ORDERS, "wrong_magic_byte"]) == {"NotFramed"}
    assert set(verdicts[ORDERS, "truncated"]) == {"Undecodable"}
    assert set(verdicts[ORDERS, "time_in_future"]) == {"time"}


def test_every_line_kind_is_there_and_refused_and_everything_else_is_valid() -> None:
    wire = JsonLines()
    reasons = defaultdict(set)
    # The clock of whoever reads the file, long after it was written.
    clock_ms = POISONED.start_ms + 365 * 24 * HOUR
    for event in arrivals(POISONED, wire):
        verdict = verdict_line(event, wire, clock_ms)
        assert (verdict is None) == (event.kind != "bad"), event
        if event.kind == "bad":
            reasons[event.topic].add(event.truth[0]["reason"])

    for topic in (CLICKS, ORDERS):
        assert reasons[topic] == IN_A_RECORD | BY_TOPIC[topic] | IN_LINES


def test_containers_hold_only_what_avro_can_represent() -> None:
    reasons = set()
    for event in arrivals(POISONED, Records()):
        if event.kind == "bad":
            reasons.add(event.truth[0]["reason"])
            assert broken_rule(event.record, POISONED.start_ms + 365 * 24 * HOUR)

    assert reasons == IN_A_RECORD | BY_TOPIC[ORDERS] | BY_TOPIC[CLICKS]


def test_bad_records_keep_a_sane_timestamp_and_the_key_of_a_user() -> None:
    users, newest = set(), 0
    for event in arrivals(POISONED, Framed(IDS)):
        if event.kind == "bad":
            assert event.truth[0]["key"] == event.key
            assert event.timestamp_ms <= newest
            users.add(event.key)
        newest = max(newest, event.timestamp_ms)

    assert len(users) > 1_000
    assert all(user.startswith("user-") for user in users)


def test_the_time_in_future_is_also_just_one_millisecond_too_far() -> None:
    ahead = {
        event.record.event_time - event.timestamp_ms
        for event in arrivals(POISONED, Framed(IDS))
        if event.kind == "bad" and event.truth[0]["reason"] == "time_in_future"
    }

    assert min(ahead) == HOUR + 1


def test_bad_ids_are_not_those_of_good_records() -> None:
    good, bad = set(), set()
    for event in arrivals(POISONED, Framed(IDS)):
        if event.record is not None:
            identifier, _, _ = identity_and_numbers(event.record)
            (bad if event.kind == "bad" else good).add(identifier)

    assert len(bad) > 100
    assert not good & bad


def test_inventory_is_never_poisoned() -> None:
    config = Config(events=2_000, bad_share=0.5, topics=(INVENTORY,))

    assert {event.kind for event in arrivals(config, Framed(IDS))} == {"good"}


@pytest.mark.parametrize("cut", range(5, 60))
def test_an_order_cut_anywhere_is_undecodable(cut: int) -> None:
    wire = Framed(IDS)
    order = next(e for e in arrivals(Config(events=500, topics=(ORDERS,)), wire))
    payload = wire.encode(ORDERS, order.record)

    with pytest.raises(CodecError):
        DECODERS[ORDERS].decode(payload[: len(payload) * cut // 60])
