"""Orders as other systems write them, made from ours: what a mapping must find again, whatever it says.

Each source is a function from an order of ours to its message and headers, after the source's public documents; nothing
here reads a mapping. `stream` plants what a mapping must ignore or refuse.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

from schemas.events import OrderEvent, OrderItem
from tests.build import T0

DIGITS = {"EUR": 2, "TRY": 2, "JPY": 0, "KWD": 3}


class Foreign(NamedTuple):
    """
    Attributes:
      order: what it is; None: it is ignored, or refused for `fault`.
      fault: a part of the reason.
    """

    message: Any
    headers: dict[str, str]
    order: OrderEvent | None
    fault: str = ""


def text(minor: int, currency: str) -> str:
    digits = DIGITS[currency]
    return f"{minor / 10**digits:.{digits}f}" if digits else str(minor)


def iso(ms: int, hours: int | None = 0) -> str:
    """With the offset of a zone; None: UTC that does not say so."""
    at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)
    return (
        at.replace(tzinfo=None).isoformat()
        if hours is None
        else at.astimezone(timezone(timedelta(hours=hours))).isoformat()
    )


def an_order(rng: random.Random, number: int, statuses: tuple[str, ...], currencies: tuple[str, ...]) -> OrderEvent:
    currency = rng.choice(currencies)
    items = []
    for i in range(rng.randrange(1, 4)):
        price, quantity = rng.randrange(1, 900_000), rng.randrange(1, 5)
        name = rng.choice(["Çay bardağı", "Mug", 'A "B"', "日本茶"])
        items.append(OrderItem(f"p-{i}{rng.randrange(99)}", name, "", quantity, price, price * quantity))
    goods = sum(item.total_price_minor for item in items)
    discount = min(goods, rng.choice([0, 0, rng.randrange(1, 500)]))
    shipping = rng.choice([0, rng.randrange(1, 900)])
    return OrderEvent(
        order_id=str(10_000_000_000 + number),
        user_id=str(rng.randrange(1, 5_000)),
        session_id=f"s-{number}",
        order_status=rng.choice(statuses),  # type: ignore[arg-type]
        items=items,
        subtotal_minor=goods,
        discount_minor=discount,
        shipping_minor=shipping,
        total_amount_minor=goods - discount + shipping,
        currency=currency,
        payment_method=rng.choice(["card", "paypal", ""]),
        shipping_region=rng.choice(["34", "CA", ""]),
        event_time=T0 + number * 1_000,
        is_first_order=False,
    )


def shopify(order: OrderEvent, rng: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    topics = {"CREATED": "create", "CONFIRMED": "paid", "SHIPPED": "fulfilled", "CANCELLED": "cancelled"}
    at = iso(order.event_time, 3)
    stamp = {"CREATED": "created_at", "CANCELLED": "cancelled_at"}.get(order.order_status, "updated_at")
    message = {
        "id": int(order.order_id),
        "test": False,
        "checkout_token": order.session_id,
        "created_at": iso(order.event_time - 5_000, 3),
        "updated_at": iso(order.event_time + 900_000, 3),
        "cancelled_at": None,
        "currency": order.currency,
        "presentment_currency": "USD",
        "total_line_items_price": text(order.subtotal_minor, order.currency),
        "total_discounts": text(order.discount_minor, order.currency),
        "total_price": text(order.total_amount_minor, order.currency),
        "total_shipping_price_set": {"shop_money": {"amount": text(order.shipping_minor, order.currency)}},
        "payment_gateway_names": [order.payment_method] if order.payment_method else [],
        "customer": {"id": int(order.user_id)},
        "shipping_address": {"province_code": order.shipping_region or None, "country_code": None},
        "line_items": [
            {"id": i, "product_id": item.product_id, "title": item.product_name, "quantity": item.quantity,
             "price": text(item.unit_price_minor, order.currency)}
            for i, item in enumerate(order.items)
        ],
    } | {stamp: at}  # fmt: skip
    return message, {"X-Shopify-Topic": f"orders/{topics[order.order_status]}", "X-Shopify-Shop-Domain": "a.example"}


def woocommerce(order: OrderEvent, rng: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    status = {"CREATED": "processing", "CONFIRMED": "processing", "DELIVERED": "completed", "CANCELLED": "failed"}
    stamp = {"CREATED": "created", "CONFIRMED": "paid", "DELIVERED": "completed"}.get(order.order_status, "modified")
    times = {name: iso(order.event_time - 77_000, None) for name in ("created", "paid", "completed", "modified")}
    times[stamp] = iso(order.event_time, None)
    message = {
        "id": int(order.order_id),
        "status": status.get(order.order_status, "refunded"),
        "currency": order.currency,
        "cart_hash": order.session_id,
        "customer_id": int(order.user_id),
        "discount_total": text(order.discount_minor, order.currency),
        "shipping_total": text(order.shipping_minor, order.currency),
        "shipping_tax": "0",
        "total": text(order.total_amount_minor, order.currency),
        "payment_method": order.payment_method,
        "shipping": {"state": order.shipping_region, "country": ""},
        **{f"date_{name}_gmt": at for name, at in times.items()},
        "date_created": iso(order.event_time + 10_800_000, None),
        "line_items": [
            {"id": i, "name": item.product_name, "product_id": 0, "variation_id": item.product_id,
             "quantity": item.quantity, "subtotal": text(item.total_price_minor, order.currency),
             "price": item.unit_price_minor / 10 ** DIGITS[order.currency]}
            for i, item in enumerate(order.items)
        ],
    }  # fmt: skip
    return message, {"X-WC-Webhook-Topic": "order.created" if order.order_status == "CREATED" else "order.updated"}


def segment(order: OrderEvent, rng: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    names = {"CREATED": "Order Completed", "CANCELLED": "Order Cancelled", "REFUNDED": "Order Refunded"}
    main = 10 ** DIGITS[order.currency]
    message = {
        "type": "track",
        "event": names[order.order_status],
        "messageId": f"m-{order.order_id}",
        "userId": order.user_id,
        "anonymousId": "a-1",
        "timestamp": iso(order.event_time).replace("+00:00", "Z"),
        "receivedAt": iso(order.event_time + 3_000),
        "properties": {
            "order_id": order.order_id,
            "currency": order.currency.lower(),
            "total": order.total_amount_minor / main,
            "revenue": 1,
            "discount": order.discount_minor / main,
            "shipping": text(order.shipping_minor, order.currency),
            "payment_method": order.payment_method,
            "products": [
                {"product_id": item.product_id, "name": item.product_name, "quantity": item.quantity,
                 "price": item.unit_price_minor / main}
                for item in order.items
            ],
        },
    }  # fmt: skip
    return message, {}


def ga4(order: OrderEvent, rng: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    main = 10 ** DIGITS[order.currency]
    refund = order.order_status == "REFUNDED"
    params = [
        {"key": "currency", "value": {"string_value": order.currency, "int_value": None}},
        {"key": "ga_session_id", "value": {"string_value": None, "int_value": order.session_id.removeprefix("u-1:")}},
    ]
    if order.payment_method:
        params.append({"key": "payment_type", "value": {"string_value": order.payment_method}})
    ecommerce = {"transaction_id": order.order_id, "shipping_value": order.shipping_minor / main, "tax_value": None}
    ecommerce |= (
        {"refund_value": order.total_amount_minor / main}
        if refund
        else {"purchase_revenue": (order.total_amount_minor - order.shipping_minor) / main}
    )
    message = {
        "event_name": "refund" if refund else "purchase",
        "event_timestamp": str(order.event_time * 1_000 + 7),
        "user_id": order.user_id,
        "user_pseudo_id": "u-1",
        "event_params": params,
        "ecommerce": ecommerce,
        "geo": {"region": order.shipping_region or "(not set)"},
        "items": [
            {"item_id": item.product_id, "item_name": item.product_name, "item_category": "(not set)",
             "quantity": str(item.quantity), "price": item.unit_price_minor / main}
            for item in order.items
        ],
    }  # fmt: skip
    return message, {}


def snowplow(order: OrderEvent, rng: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    vendor, main = "com_snowplowanalytics_snowplow_ecommerce", 10 ** DIGITS[order.currency]
    refund = order.order_status == "REFUNDED"
    about = {"transaction_id": order.order_id, "currency": order.currency}
    about |= (
        {"refund_amount": order.total_amount_minor / main}
        if refund
        else {
            "revenue": order.total_amount_minor / main,
            "shipping": order.shipping_minor / main,
            "discount_amount": order.discount_minor / main,
            "payment_method": order.payment_method,
        }
    )
    message = {
        "app_id": "shop",
        "event": "unstruct",
        "event_id": f"e-{order.order_id}",
        "collector_tstamp": iso(order.event_time + 2_000).replace("+00:00", "Z"),
        "derived_tstamp": iso(order.event_time).replace("+00:00", "Z"),
        "user_id": order.user_id,
        "domain_sessionid": order.session_id,
        "geo_region_name": order.shipping_region or None,
        f"unstruct_event_{vendor}_snowplow_ecommerce_action_1": {"type": "refund" if refund else "transaction"},
        f"contexts_{vendor}_{'refund' if refund else 'transaction'}_1": [about],
        f"contexts_{vendor}_product_1": [
            {"id": item.product_id, "name": item.product_name, "category": "", "quantity": item.quantity,
             "price": item.unit_price_minor / main, "currency": order.currency}
            for item in order.items
        ],
    }  # fmt: skip
    return message, {}


Source = Callable[[OrderEvent, random.Random], tuple[dict[str, Any], dict[str, str]]]
SOURCES: dict[str, tuple[Source, tuple[str, ...], tuple[str, ...]]] = {
    "shopify": (shopify, ("CREATED", "CONFIRMED", "SHIPPED", "CANCELLED"), ("EUR", "TRY", "JPY", "KWD")),
    "woocommerce": (woocommerce, ("CREATED", "CONFIRMED", "DELIVERED", "CANCELLED", "REFUNDED"), ("EUR", "JPY", "KWD")),
    "segment": (segment, ("CREATED", "CANCELLED", "REFUNDED"), ("EUR", "TRY", "JPY", "KWD")),
    "ga4": (ga4, ("CREATED", "REFUNDED"), ("EUR", "TRY", "JPY", "KWD")),
    "snowplow": (snowplow, ("CREATED", "REFUNDED"), ("EUR", "TRY")),
}
_STRANGERS: dict[str, dict[str, Any]] = {
    "shopify": {"id": 1, "order_id": 2, "refund_line_items": []},
    "woocommerce": {"id": 1, "status": "trash", "line_items": [{}]},
    "segment": {"type": "identify", "userId": "7"},
    "ga4": {"event_name": "scroll"},
    "snowplow": {"event": "page_ping"},
}
_MONEY = {"shopify": "total_price", "woocommerce": "total"}


def stream(name: str, count: int, seed: int = 1) -> list[Foreign]:
    """Messages of a source: of ten, about seven are orders, two are ignored and one is refused."""
    source, statuses, currencies = SOURCES[name]
    rng = random.Random(seed)
    found = []
    for number in range(count):
        order = _as_known(name, an_order(rng, number, statuses, currencies))
        message, headers = source(order, rng)
        match rng.randrange(20):
            case 0 | 1 | 2:
                found.append(Foreign(dict(_STRANGERS[name]), {}, None))
            case 3:
                found.append(Foreign(_changed(name, message, "id"), headers, None, "order_id"))
            case 4:
                found.append(Foreign(_changed(name, message, "money"), headers, None, "is not an amount"))
            case _:
                found.append(Foreign(message, headers, order))
    return found


def _as_known(name: str, order: OrderEvent) -> OrderEvent:
    """What the source can say of an order."""
    fields: dict[str, Any] = {}
    refund = order.order_status == "REFUNDED"
    if name == "ga4":
        fields = {"discount_minor": 0, "session_id": f"u-1:{order.session_id}"}
    elif name == "segment":
        fields = {"session_id": "", "shipping_region": ""}
    elif name == "snowplow" and refund:
        fields = {"discount_minor": 0, "shipping_minor": 0, "payment_method": ""}
    known = _with(order, **fields)
    if name in ("ga4", "segment", "snowplow"):
        goods = known.total_amount_minor + known.discount_minor - known.shipping_minor
        known = _with(known, subtotal_minor=max(goods, 0))
    return known


def _with(order: OrderEvent, **changes: Any) -> OrderEvent:
    return OrderEvent(**({name: getattr(order, name) for name in order.__struct_fields__} | changes))


def _changed(name: str, message: dict[str, Any], what: str) -> dict[str, Any]:
    """With its id gone, or an amount that is none."""
    vendor = "contexts_com_snowplowanalytics_snowplow_ecommerce"
    inner = {"segment": "properties", "ga4": "ecommerce"}.get(name)
    target = message if inner is None else message[inner]
    if name == "snowplow":
        target = message.get(f"{vendor}_transaction_1", message.get(f"{vendor}_refund_1"))[0]
    if what == "id":
        key = {"segment": "order_id"}.get(name, "transaction_id" if name in ("ga4", "snowplow") else "id")
        target[key] = {"a": 1} if key == "id" else ""
        if name == "ga4":
            target[key] = "(not set)"
    else:
        key = {"segment": "total", "ga4": "refund_value" if "refund_value" in target else "purchase_revenue"}.get(
            name, _MONEY.get(name, "refund_amount" if "refund_amount" in target else "revenue")
        )
        target[key] = "1e999"
    return message
