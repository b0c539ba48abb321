"""The shop's traffic as such: every record valid, in order of event time, the same for the same seed."""

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import ClickstreamEvent, InventoryEvent, OrderEvent
from simulator import orders as orders_module
from simulator.config import CLICKS, INVENTORY, ORDERS, TOPICS, Config, ConfigError
from simulator.shop import Shop, events
from simulator.ticks import HOUR_MS, Ticks, start_for

NOON_UTC = 1_767_268_800_000
MINUTE = 60_000

configs = st.builds(
    Config,
    seed=st.integers(),
    start_ms=st.integers(1, 4_000_000_000_000),
    rate=st.floats(0.5, 5_000),
    events=st.integers(1, 1_500),
    rhythm=st.booleans(),
    users=st.integers(1, 3_000),
    currencies=st.lists(st.sampled_from(["TRY", "EUR", "JPY", "KWD", "XPF"]), min_size=1, max_size=4).map(tuple),
    topics=st.lists(st.sampled_from(TOPICS), min_size=1, unique=True).map(tuple),
    fraud_share=st.floats(0, 0.9),
)


def orders_of(config: Config) -> list[OrderEvent]:
    return [event.record for event in events(config) if isinstance(event.record, OrderEvent)]


@settings(deadline=None, max_examples=60)
@given(configs)
def test_any_config_gives_exactly_its_events_in_order_each_stamped_and_keyed_by_its_record(config: Config) -> None:
    sent = list(events(config))

    assert len(sent) == config.events
    assert [e.timestamp_ms for e in sent] == sorted(e.timestamp_ms for e in sent)
    assert sent[0].timestamp_ms >= config.start_ms
    for event in sent:
        assert event.topic in config.topics
        assert event.record.event_time == event.timestamp_ms
        assert event.key == (event.record.product_id if event.topic == INVENTORY else event.record.user_id)


@settings(deadline=None, max_examples=60)
@given(configs)
def test_amounts_add_up_and_stock_never_runs_below_zero(config: Config) -> None:
    for event in events(config):
        record = event.record
        if isinstance(record, OrderEvent):
            assert all(i.quantity >= 1 and i.total_price_minor == i.quantity * i.unit_price_minor for i in record.items)
            assert record.subtotal_minor == sum(i.total_price_minor for i in record.items)
            assert record.discount_minor >= 0
            assert record.shipping_minor >= 0
            total = record.subtotal_minor - record.discount_minor + record.shipping_minor
            assert record.total_amount_minor == total > 0
            planted = record.user_id.startswith("fraud")
            assert record.currency in (("TRY",) if planted else config.currencies)
        elif isinstance(record, InventoryEvent):
            assert record.stock_after >= 0


@settings(deadline=None, max_examples=20)
@given(configs)
def test_the_same_config_gives_the_same_events_and_another_seed_others(config: Config) -> None:
    assert list(events(config)) == list(events(config))


def test_another_seed_or_start_repeats_no_id() -> None:
    ids = [
        {e.record.order_id for e in events(config) if e.topic == ORDERS}
        for config in (Config(events=3_000), Config(events=3_000, seed=2), Config(events=3_000, start_ms=NOON_UTC))
    ]

    assert all(ids)
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]


def test_ids_are_unique_and_an_order_enters_a_status_once() -> None:
    seen = Counter()
    for event in events(Config(events=60_000, rate=5, users=2_000)):
        record = event.record
        seen[(record.order_id, record.order_status) if isinstance(record, OrderEvent) else record.event_id] += 1

    assert set(seen.values()) == {1}


def test_orders_move_on_after_their_creation_and_keep_what_they_are() -> None:
    by_order = defaultdict(list)
    for order in orders_of(Config(events=120_000, rate=1, users=5_000)):
        by_order[order.order_id].append(order)

    paths = Counter()
    for history in by_order.values():
        assert len({(o.user_id, o.total_amount_minor, o.shipping_region, o.is_first_order) for o in history}) == 1
        if history[0].order_status == "CREATED":
            assert [o.event_time for o in history] == sorted({o.event_time for o in history})
            paths[tuple(o.order_status for o in history)] += 1
    assert paths[("CREATED", "CONFIRMED", "SHIPPED")] > 10
    assert paths[("CREATED", "CANCELLED")] > 10
    assert paths[("CREATED", "CONFIRMED", "SHIPPED", "DELIVERED")] > 10


def test_ordinary_users_stay_in_their_region_and_keep_their_orders_apart() -> None:
    regions = defaultdict(set)
    created = defaultdict(list)
    firsts = Counter()
    for event in events(Config(events=60_000, users=300)):
        record = event.record
        if event.topic == INVENTORY or event.key.startswith("fraud"):
            continue
        regions[event.key].add(record.geo_region if event.topic == CLICKS else record.shipping_region)
        if event.topic == ORDERS and record.order_status == "CREATED":
            created[event.key].append(record.event_time)
            firsts[event.key] += record.is_first_order

    assert max(len(of_user) for of_user in regions.values()) == 1
    assert sum(len(times) for times in created.values()) > 300
    assert all(later - earlier > 10 * MINUTE for times in created.values() for earlier, later in pairwise(times))
    assert set(firsts.values()) == {0, 1}
    assert all(region.pop() in {f"TR-{n:02d}" for n in range(1, 82)} for region in regions.values())


def test_purchase_clicks_of_a_visit_are_the_lines_of_its_orders() -> None:
    bought, ordered = defaultdict(list), defaultdict(list)
    for event in events(Config(events=40_000, fraud_share=0)):
        record = event.record
        if isinstance(record, ClickstreamEvent) and record.event_type == "PURCHASE":
            bought[record.session_id].append((record.product_id, record.price_minor, record.quantity))
        elif isinstance(record, OrderEvent) and record.order_status == "CREATED":
            ordered[record.session_id] += [(i.product_id, i.unit_price_minor, i.quantity) for i in record.items]

    assert len(ordered) > 300
    # The last orders are still to come when the stream is cut.
    assert all(bought[session][: len(lines)] == lines for session, lines in ordered.items())
    assert sum(map(len, ordered.values())) > 0.98 * sum(map(len, bought.values()))


def test_sales_follow_orders_and_movements_explain_the_stock() -> None:
    stock: dict[tuple[str, str], int] = {}
    movements = Counter()
    ordered = set()
    for event in events(Config(events=150_000, topics=(ORDERS, INVENTORY), users=50_000)):
        record = event.record
        if isinstance(record, OrderEvent):
            ordered.add(record.order_id)
            continue
        movements[record.movement] += 1
        shelf = (record.product_id, record.warehouse_id)
        if shelf in stock:
            assert record.stock_after == stock[shelf] + record.quantity_change
        stock[shelf] = record.stock_after
        if record.movement == "SALE":
            assert record.order_id in ordered

    assert set(movements) == {"SALE", "RESTOCK", "RETURN", "ADJUSTMENT"}


def test_the_first_minute_already_has_every_kind_of_click_and_orders_of_several_statuses() -> None:
    sent = [event.record for event in events(Config(duration_ms=MINUTE))]

    assert len(sent) == 3_000
    assert len({r.event_type for r in sent if isinstance(r, ClickstreamEvent)}) == 7
    statuses = {r.order_status for r in sent if isinstance(r, OrderEvent)}
    assert statuses >= {"CREATED", "CONFIRMED", "SHIPPED", "DELIVERED"}


def test_the_share_of_fraud_is_about_what_was_asked() -> None:
    for share in (0.0, 0.02, 0.3):
        orders = orders_of(Config(events=60_000, rate=5, fraud_share=share))

        fraud = sum(order.user_id.startswith("fraud-") for order in orders)
        assert abs(fraud / len(orders) - share) < 0.01


def test_only_the_topics_asked_for_are_made() -> None:
    for topic in TOPICS:
        assert {event.topic for event in events(Config(events=2_000, topics=(topic,)))} == {topic}


def test_names_and_urls_are_not_ascii_only() -> None:
    sent = [event.record for event in events(Config(events=3_000))]

    assert any(not i.product_name.isascii() for r in sent if isinstance(r, OrderEvent) for i in r.items)
    assert any(not r.page_url.isascii() for r in sent if isinstance(r, ClickstreamEvent))


def test_prices_mostly_stay_below_the_high_value_bound() -> None:
    amounts = [o.total_amount_minor for o in orders_of(Config(events=100_000, fraud_share=0))]

    assert 0 < sum(amount > 500_000 for amount in amounts) / len(amounts) < 0.1


def test_orders_are_forgotten_rather_than_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_module, "_MOST_WAITING", 500)
    config = Config(events=40_000, rate=5, topics=(ORDERS,), users=50_000)
    shop = Shop(config)

    statuses = Counter(event.record.order_status for event in shop.traffic(Ticks(config)))

    assert shop._timeline.waiting < 1_000
    assert statuses["SHIPPED"] > 0.5 * statuses["CREATED"]


def test_evenings_are_busier_than_nights_and_the_day_has_the_mean_rate() -> None:
    by_hour = Counter()
    ticks = Ticks(Config(start_ms=NOON_UTC, duration_ms=24 * HOUR_MS, rate=2, rhythm=True))
    while (time_ms := ticks.next()) is not None:
        by_hour[(time_ms // HOUR_MS + 3) % 24] += 1

    assert by_hour.total() == pytest.approx(2 * 24 * 3600, rel=0.001)
    assert by_hour[21] > 5 * by_hour[4]


@given(st.integers(1, 300_000), st.floats(1, 5_000), st.integers(NOON_UTC, NOON_UTC + 24 * HOUR_MS))
@settings(deadline=None, max_examples=25)
def test_a_start_chosen_backwards_ends_just_before_now(count: int, rate: float, now_ms: int) -> None:
    ticks = Ticks(Config(start_ms=start_for(count, rate, now_ms), events=count, rate=rate, rhythm=True))
    last = 0
    while (time_ms := ticks.next()) is not None:
        last = time_ms

    assert now_ms - 10_000 / rate - 10 < last <= now_ms


@pytest.mark.parametrize(
    ("settings_", "flag"),
    [
        ({"rate": 0}, "rate"),
        ({"start_ms": 0}, "start"),
        ({"events": 0}, "events"),
        ({"duration_ms": 0}, "duration"),
        ({"users": 0}, "users"),
        ({"topics": ()}, "topics"),
        ({"topics": ("orders",)}, "topics"),
        ({"fraud_share": 1.5}, "fraud_share"),
        ({"bad_share": float("nan")}, "bad_share"),
        ({"bad_share": 0.4, "late_share": 0.4, "duplicate_share": 0.4}, "bad_share"),
        ({"out_of_orderness_ms": -1}, "out_of_orderness"),
        ({"out_of_orderness_ms": 20 * MINUTE}, "late_by"),
    ],
)
def test_a_config_that_makes_no_sense_names_the_flag(settings_: dict, flag: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings_)
    assert caught.value.flag == flag
    assert str(caught.value).startswith(f"--{flag}: ")
