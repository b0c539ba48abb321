"""The steps of the fraud job, run by Beam. Pipelines tell whole stories: starting one takes longer than running it."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_pipeline, test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.currencies import number_of
from schemas.events import FraudAlert, OrderEvent
from tests.build import HIGH, HOUR, LOW, MINUTE, SECOND, T0, TotalOf, block, item, make_fetch, order, payload
from tests.oracle import expected_alerts
from tests.rules_made import files
from tests.rules_made import orders as some_orders
from tests.transforms.domain.test_fraud_finding import as_order
from transforms.blocks import Block
from transforms.decode import ORDERS, BlockDecoder
from transforms.domain.conditions import matcher
from transforms.domain.fraud import Order, alert_id, order_flags
from transforms.domain.fraud_rules import default_rules, parse_rules
from transforms.errors import BadRecord
from transforms.fraud import DetectFraud, FraudRows, decode_rows
from transforms.key_groups import MAX_PARALLELISM, shard_keys
from transforms.keyed_state import shard_of
from transforms.ledger import Counts
from transforms.sharded_rows import DecodeRows, Decoding, encode_rows

RULES = default_rules()
LATENESS_MS = 10 * MINUTE
SHARDS = 4
LIRA = number_of("TRY")

HIGH_ONLY = parse_rules(
    "{version: 1, currency: TRY, rules: {BURST: {kind: burst, orders: 3, within: 5m, above: 5000, risk_score: 0.9}}}"
)


def pipeline() -> beam.Pipeline:
    return test_pipeline.TestPipeline(runner=FnApiRunner())


def decode(rules: Any = RULES) -> DecodeRows:
    return DecodeRows(ORDERS, FraudRows(rules), Decoding("fraud-detector", SHARDS, LATENESS_MS, make_fetch))


def key_of(user: bytes) -> int:
    return shard_keys(SHARDS, MAX_PARALLELISM)[shard_of(user, SHARDS)]


def rows_of(keyed: tuple[int, bytes]) -> list[tuple[int, str, Order]]:
    shard, rows = keyed
    return [(shard, user, order) for user, order in decode_rows(rows)]


def refused(record: BadRecord) -> tuple[str, int, str, bytes | None]:
    return (record.job, record.offset, record.error_class, record.payload)


def key(alert: FraudAlert) -> tuple[str, str, str]:
    return (alert.alert_type, alert.user_id, alert.order_id)


def timed(element: Any, at: Any = beam.DoFn.TimestampParam) -> tuple[Any, int]:
    return (element, at.micros // 1000)


def total(counts: Iterable[Counts]) -> Counts:
    return Counts(*(sum(column) for column in zip(*counts, strict=True)))


def summed(counts: beam.PCollection[Counts]) -> beam.PCollection[Counts]:
    return counts | "List" >> beam.combiners.ToList() | "Sum" >> beam.Map(lambda all_: total(all_ or [Counts()]))


# DecodeRows of FraudRows


def test_blocks_become_rows_by_shard_and_everything_else_is_accounted_for() -> None:
    bad, late = b"junk", order("o-late", at=T0 - LATENESS_MS - 1)
    good = [
        order("o-1", user="u-1", amount=HIGH, is_first_order=True),
        order("o-2", user="u-2", currency="EUR", region="İzmir"),
        order("o-3", user="u-1", status="CANCELLED"),
        order("o-4", user="u-1", status="SHIPPED"),  # good, but no rule looks at it
    ]
    one = block([good[0], bad, late, good[1]], watermarks_ms=T0)
    two = block([codec.to_json(good[2]), b"{", codec.to_json(good[3])], encoding="json", first_offset=10)
    with pipeline() as p:
        outputs = p | beam.Create([one, two]) | decode()
        assert_that(
            outputs.good | beam.FlatMap(rows_of),
            equal_to(
                [
                    (key_of(b"u-1"), "u-1", (T0, "o-1", order_flags(0, True, LIRA), HIGH, "Istanbul")),
                    (key_of(b"u-2"), "u-2", (T0, "o-2", order_flags(0, False, number_of("EUR")), LOW, "İzmir")),
                    (key_of(b"u-1"), "u-1", (T0, "o-3", order_flags(4, False, LIRA), LOW, "Istanbul")),
                ]
            ),
            "good",
        )
        assert_that(
            outputs.bad | "Bad" >> beam.Map(refused),
            equal_to([("fraud-detector", 1, "NotFramed", bad), ("fraud-detector", 11, "Undecodable", b"{")]),
            "bad",
        )
        assert_that(
            outputs.late | "Late" >> beam.Map(refused),
            equal_to([("fraud-detector", 2, "Late", one.payload(2))]),
            "late",
        )
        assert_that(outputs.counts, equal_to([Counts(2, 0, 1, 1), Counts(2, 1, 1, 0)]), "counts")


def test_orders_that_no_rule_looks_at_are_good_but_go_no_further() -> None:
    orders = [order(f"o-{amount}", amount=amount) for amount in (LOW, HIGH - 1, HIGH)]
    as_json = block([codec.to_json(order("o-json", amount=LOW))], encoding="json")
    with pipeline() as p:
        outputs = p | beam.Create([block(orders), as_json]) | decode(HIGH_ONLY)
        assert_that(outputs.good | beam.FlatMap(rows_of) | beam.Map(lambda r: r[2][1]), equal_to([f"o-{HIGH}"]), "good")
        assert_that(summed(outputs.counts), equal_to([Counts(3, 3)]), "counts")  # the fourth is counted where it goes


def test_both_ways_of_reading_a_record_give_the_same_row() -> None:
    orders = [
        order(f"o-{i}", user="Gül", status=status, currency=currency, is_first_order=first, region="Çorum", at=T0 + i)
        for i, (status, currency, first) in enumerate(
            itertools.product(("CREATED", "CANCELLED"), ("TRY", "EUR", "JPY", "ZZZ"), (False, True))
        )
    ]
    framed, lines = block(orders), block(map(codec.to_json, orders), encoding="json")
    with pipeline() as p:
        found = p | beam.Create([framed, lines]) | decode()
        rows = found.good | beam.FlatMap(rows_of)
        assert_that(rows | beam.combiners.Count.PerElement() | beam.Values(), equal_to([2] * len(orders)))


def rows_by(text: str, orders: list[OrderEvent], encoding: str) -> list[tuple[int, str, Order]]:
    """Shard, user and order of what rules keep of orders."""
    payloads = orders if encoding == "confluent" else map(codec.to_json, orders)
    decoder = BlockDecoder(ORDERS, "fraud-detector", make_fetch(), LATENESS_MS)
    decoded = decoder.decode(block(payloads, encoding=encoding))
    assert bool(decoded.records) == (encoding == "json")
    rows = FraudRows(parse_rules(text))(decoded, SHARDS)
    return [(shard, user, order) for shard, of_shard in rows.items() for user, order in of_shard]


@given(files, st.lists(some_orders, min_size=1, max_size=12))
def test_of_version_2_both_ways_of_reading_give_the_rows_that_touch_a_rule_with_what_it_needs(
    text: str, orders: list[OrderEvent]
) -> None:
    rules = parse_rules(text)
    touching = [c for rule in rules.rules for c in rule.conditions]
    wanted = [
        (shard_of(o.user_id.encode(), SHARDS), o.user_id, kept)
        for o in orders
        for kept in [as_order(o, rules.bits)]
        if rules.exact is None or any(matcher(c, rules.bits)(kept) for c in touching)
    ]
    if rules.exact is None:  # rules of version 1 alone keep what their least amount lets through
        wanted = [w for w in wanted if w in rows_by(text, orders, "json")]
    assert Counter(rows_by(text, orders, "confluent")) == Counter(rows_by(text, orders, "json")) == Counter(wanted)


def test_what_is_decoded_beside_bad_records_and_items_that_are_not_utf_8_is_of_its_own_record() -> None:
    rule = "{kind: distinct, of: items.category, at_least: 2, within: 1m, risk_score: 0}"
    text = f"{{version: 2, currency: TRY, rules: {{R: {rule}}}}}"
    good = [order(f"o-{n}", items=[item(category=f"{n}-{i}") for i in range(n)]) for n in (0, 2, 1, 3)]
    spoiled = payload(order("o-x", items=[item(category="XX"), item(category="YY")])).replace(b"XX", b"\xff\xfe")
    decoder = BlockDecoder(ORDERS, "fraud-detector", make_fetch(), LATENESS_MS)
    decoded = decoder.decode(block([spoiled, good[0], good[1], spoiled, *good[2:]]))
    assert (len(decoded.bad), decoded.records) == (2, [])
    (rows,) = FraudRows(parse_rules(text))(decoded, 1).values()
    categories = {row[1]: row[5][1] for _, row in rows}  # type: ignore[misc]
    assert categories == {f"o-{n}": tuple(f"{n}-{i}" for i in range(n)) for n in (0, 2, 1, 3)}


# DetectFraud


def story(seed: int) -> list[OrderEvent]:
    """Some hundred orders of a few users, dense enough for every rule."""
    chance = random.Random(seed)
    return [
        order(
            f"o-{i:03}",
            user=f"u-{chance.randrange(12)}",
            at=T0 + chance.randrange(90) * MINUTE + chance.choice([0, 0, 1, 30 * SECOND]),
            amount=chance.choice([LOW, HIGH, HIGH]),
            status=chance.choice(["CREATED", "CREATED", "CREATED", "CANCELLED", "DELIVERED"]),
            region=chance.choice(["Istanbul"] * 5 + ["Izmir"]),
            is_first_order=chance.random() < 0.05,
        )
        for i in range(300)
    ]


def blocks_of(orders: list[OrderEvent], size: int) -> list[Block]:
    pieces = [(i, orders[i : i + size]) for i in range(0, len(orders), size)]
    return [block(piece, first_offset=i, times_ms=[o.event_time for o in piece]) for i, piece in pieces]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_alerts_of_shuffled_blocks_with_repeats_are_the_oracles_each_once_at_its_orders_time(seed: int) -> None:
    orders = story(seed)
    expected = expected_alerts(orders)
    assert {rule for rule, _, _ in expected} == {rule.name for rule in RULES.rules}
    chance = random.Random(seed)
    delivered = orders + chance.sample(orders, 60)
    chance.shuffle(delivered)
    tracked = [o for o in delivered if o.order_status != "DELIVERED"]
    repeats = len(tracked) - len({o.order_id for o in tracked})
    times = {o.order_id: o.event_time for o in orders}
    with pipeline() as p:
        decoded = p | beam.Create(blocks_of(delivered, 40)) | decode()
        alerts, counts = decoded.good | DetectFraud(RULES, LATENESS_MS, 1_000)
        assert_that(alerts | beam.Map(key), equal_to(sorted(expected)), "alerts")
        assert_that(
            alerts | "Ids" >> beam.Map(lambda a: a.alert_id), equal_to([alert_id(*k) for k in expected]), "alert ids"
        )
        assert_that(
            alerts | "Times" >> beam.Map(timed) | beam.Map(lambda at: (at[0].order_id, at[0].event_time, at[1])),
            equal_to([(o, times[o], times[o]) for _, _, o in expected]),
            "times",
        )
        together = (decoded.counts, counts) | beam.Flatten()
        assert_that(
            summed(together),
            equal_to([Counts(len(delivered), len(delivered) - repeats, 0, 0, repeats)]),
            "counts",
        )


def test_an_alert_carries_all_its_fields() -> None:
    orders = [order(f"o-{i}", user="Gül", at=T0 + i * MINUTE) for i in (1, 2, 3)]
    with pipeline() as p:
        decoded = p | beam.Create([block(orders)]) | decode()
        alerts, _ = decoded.good | DetectFraud(RULES, LATENESS_MS, 1_000)
        assert_that(
            alerts | beam.Map(lambda a: (a.detected_at > T0, json.loads(codec.to_json(a)) | {"detected_at": 0})),
            equal_to(
                [
                    (
                        True,
                        {
                            "alert_id": alert_id("RAPID_ORDERS", "Gül", "o-3"),
                            "user_id": "Gül",
                            "order_id": "o-3",
                            "alert_type": "RAPID_ORDERS",
                            "risk_score": 0.85,
                            "description": "3 CREATED orders within 5 min",
                            "amount_minor": LOW,
                            "event_time": T0 + 3 * MINUTE,
                            "detected_at": 0,
                            "related_events": ["o-1", "o-2", "o-3"],
                            "currency": "TRY",
                        },
                    )
                ]
            ),
        )


# State that expires


KEYED = tuple[int, bytes]
Event = Callable[[test_stream.TestStream], test_stream.TestStream]


def arrives(*orders: OrderEvent) -> Event:
    flags = {"CREATED": 16, "CANCELLED": 4 | 16}
    rows = [
        (o.user_id, (o.event_time, o.order_id, flags[o.order_status], o.total_amount_minor, o.shipping_region))
        for o in orders
    ]
    at = Timestamp(micros=min(o.event_time for o in orders) * 1000)
    return lambda stream: stream.add_elements([TimestampedValue((0, encode_rows(rows)), at)])


def watermark(at_ms: int) -> Event:
    return lambda stream: stream.advance_watermark_to(Timestamp(micros=at_ms * 1000))


def check_stream(events: list[Event], alerts: list[tuple[str, str, str]], repeats: int) -> None:
    """Runs `DetectFraud` on a stream, each order of which counts once.

    FnApiRunner knows no TestStream, Beam's other runner in the SDK does.
    """
    stream = test_stream.TestStream()
    for event in events:
        stream = event(stream)
    options = PipelineOptions(streaming=True)
    with test_pipeline.TestPipeline(runner=BundleBasedDirectRunner(), options=options) as p:
        keyed = (
            p | stream.advance_watermark_to_infinity() | beam.Map(lambda kv: kv).with_output_types(tuple[int, bytes])
        )
        found, counts = keyed | DetectFraud(RULES, LATENESS_MS, 1_000)
        assert_that(found | beam.Map(key), equal_to(alerts), "alerts")
        unaccounted = counts | TotalOf() | beam.Map(lambda c: (c.records_in - c.good - c.duplicates, c.duplicates))
        assert_that(unaccounted, equal_to([(0, repeats)]), "counts")


def test_a_repeat_within_the_allowed_lateness_is_counted_and_gives_no_alert() -> None:
    orders = [order(f"o-{i}", at=T0) for i in (1, 2, 3)]
    check_stream(
        [arrives(*orders), watermark(T0 + LATENESS_MS), arrives(orders[0]), arrives(*orders[1:])],
        [("RAPID_ORDERS", "u-1", "o-3")],
        3,
    )


def test_an_out_of_order_arrival_completes_patterns_with_what_is_still_kept() -> None:
    first, second, third = (order(f"o-{i}", at=T0 + i * MINUTE) for i in (1, 2, 3))
    check_stream(
        [arrives(second, third), watermark(T0 + MINUTE + LATENESS_MS), arrives(first)],
        [("RAPID_ORDERS", "u-1", "o-3")],
        0,
    )


def test_an_order_is_kept_while_one_that_is_not_late_can_complete_a_pattern_with_it() -> None:
    """Ten minutes of the rule's span, and then the allowed lateness."""
    first, last = order("o-1", at=T0, region="İzmir"), order("o-2", at=T0 + 10 * MINUTE)
    check_stream(
        [arrives(first), watermark(T0 + 10 * MINUTE + LATENESS_MS), arrives(last)],
        [("LOCATION_ANOMALY", "u-1", "o-2")],
        0,
    )


def test_when_no_order_in_time_can_reach_it_any_more_an_order_is_forgotten() -> None:
    check_stream(
        [arrives(order("o-1", at=T0)), watermark(T0 + 3 * HOUR), arrives(order("o-1", at=T0)), arrives(order("o-2"))],
        [],
        0,
    )


def test_cancelled_orders_are_kept_for_their_own_longer_span() -> None:
    created, cancelled = order("o-1", at=T0), order("o-1", at=T0, status="CANCELLED")
    # Expiry is looked at every 5 minutes: CREATED is gone 20 to 25 minutes later, CANCELLED 40 to 45.
    check_stream(
        [arrives(created, cancelled), watermark(T0 + 30 * MINUTE), arrives(created), arrives(cancelled)], [], 1
    )
    check_stream(
        [arrives(created, cancelled), watermark(T0 + 60 * MINUTE), arrives(created), arrives(cancelled)], [], 0
    )


def test_one_users_expiry_leaves_the_others_alone_and_goes_on() -> None:
    early, later = order("o-1", user="u-1", at=T0), order("o-2", user="u-2", at=T0 + HOUR)
    check_stream(
        [
            arrives(early),
            watermark(T0 + HOUR),
            arrives(later),
            watermark(T0 + HOUR + 5 * MINUTE),
            arrives(early, later),
            watermark(T0 + 3 * HOUR),
            arrives(later),
        ],
        [],
        1,
    )
