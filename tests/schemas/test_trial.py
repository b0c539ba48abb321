"""A mapping tried on a sample: every message counted once, and what is never filled named with what then fails."""

from __future__ import annotations

import json

import msgspec
import pytest

from schemas.codec import Undecodable
from schemas.mapping import SHIPPED, Envelope, parse_mapping, shipped
from schemas.suggestion import suggest
from schemas.trial import Trial, try_out
from tests.build import T0, order
from tests.foreign import SOURCES, stream
from transforms.domain.validity import check_order

COUNT = 500


def tried(name: str) -> Trial:
    sample = [
        (msg.message, Envelope({k.lower(): v for k, v in msg.headers.items()}, time_ms=T0 * 2))
        for msg in stream(name, COUNT)
    ]
    sample.append((Undecodable("not JSON: 7"), Envelope()))
    return try_out(
        parse_mapping(shipped(name)), "orders", sample, lambda record, e: check_order(record, e.time_ms or 0)
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_every_message_of_a_sample_is_counted_once_as_the_generator_planted_it(name: str) -> None:
    trial, sample = tried(name), stream(name, COUNT)
    wanted = sum(m.order is not None for m in sample)
    refused = sum(bool(m.fault) for m in sample) + 1
    assert (trial.messages, trial.recognised, trial.refused) == (COUNT + 1, wanted, refused)
    assert trial.ignored == COUNT + 1 - wanted - refused
    assert sum(reason.count for reason in trial.reasons) == refused
    assert "is_first_order" in trial.never_filled
    assert "HIGH_VALUE_FIRST_ORDER" in trial.never_filled["is_first_order"]
    assert trial.record is not None
    assert trial.source in [m.message for m in sample]


def test_one_user_for_all_is_odd_and_so_is_a_shop_without_a_new_order() -> None:
    orders = [(msgspec.to_builtins(order(f"o-{i}", user="0", status="SHIPPED")), Envelope()) for i in range(30)]
    fields = {name: name for name in ("order_id", "user_id", "currency", "order_status")}
    text = {
        "version": 1,
        "orders": {
            "fields": fields
            | {"total_amount_minor": {"minor": "total_amount_minor"}, "event_time": {"time": "event_time"}}
        },
    }
    trial = try_out(parse_mapping(json.dumps(text)), "orders", orders, lambda *_: None)
    assert any("user_id '0'" in warning for warning in trial.warnings)
    assert any("CREATED" in warning for warning in trial.warnings)


OWN = {
    "orderNumber": "A-1",
    "customer": {"id": 7, "email": "a@shop.example"},
    "status": "paid",
    "currencyCode": "eur",
    "grand_total": "19.99",
    "shippingCost": 2.5,
    "created_at": "2026-11-29T10:00:00Z",
    "lineItems": [{"sku": "p-1", "title": "Mug", "qty": 2, "unit_price": "8.75"}],
}


def test_a_suggestion_for_an_order_of_ones_own_is_a_mapping_that_finds_it() -> None:
    text = suggest([OWN, OWN | {"status": "new"}])
    trial = try_out(parse_mapping(text), "orders", [(OWN, Envelope())], lambda *_: None)
    assert trial.recognised == 1, (text, trial.reasons)
    assert trial.record is not None
    wanted = {
        "order_id": "A-1",
        "user_id": "7",
        "order_status": "CONFIRMED",
        "currency": "EUR",
        "total_amount_minor": 1999,
    }
    assert {name: trial.record[name] for name in wanted} == wanted
    assert trial.record["items"][0]["unit_price_minor"] == 875
    assert text.startswith("# A draft")


@pytest.mark.parametrize("name", SOURCES)
def test_a_sample_of_a_known_system_is_recognised(name: str) -> None:
    assert f"--mapping={name}" in suggest(msg.message for msg in stream(name, 50))


@pytest.mark.parametrize("sample", [[], [7], [{}], [{"a.b": 1, "": 2, "$x": 3}], [{"id": None}]])
def test_a_suggestion_for_nothing_says_what_is_missing(sample: list[object]) -> None:
    assert "order_id: nothing looks like it" in suggest(sample)
