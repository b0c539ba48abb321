"""Decoding side by side: the same orders as Avro, as JSON, and as somebody else's JSON through a mapping.

Each block of messages is decoded, validated and turned into the rows of the revenue job, in this process, without Kafka
or Flink. The formats take turns, and the best of many turns counts: a busy machine only makes turns slower.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bench.orders import Spec, generate
from bench.throughput import positive
from schemas import codec
from schemas.events import OrderEvent, avro_schema
from schemas.mapping import parse_mapping, shipped
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.decode import ORDERS, BlockDecoder
from transforms.revenue import RevenueRows

__all__ = ["Row", "add_arguments", "main", "measure", "table"]

_WRITER_ID = 1
_SHARDS = 32


class Row(NamedTuple):
    """Of one format, per order.

    Attributes:
      decode_us, rows_us: CPU time to a valid record, and to a row of the revenue job.
    """

    name: str
    size: float
    decode_us: float
    rows_us: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=positive, default=2_000, metavar="N", help="orders in a block (default: 2000)")
    parser.add_argument(
        "--repeat", type=positive, default=50, metavar="N", help="turns, of which the best counts (default: 50)"
    )


def segment(order: OrderEvent) -> dict[str, Any]:
    """The order as Segment's e-commerce spec has it. It knows but three statuses."""
    at = datetime.datetime.fromtimestamp(order.event_time // 1_000, datetime.UTC)
    return {
        "type": "track",
        "event": {"CANCELLED": "Order Cancelled", "REFUNDED": "Order Refunded"}.get(
            order.order_status, "Order Completed"
        ),
        "messageId": order.order_id,
        "userId": order.user_id,
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{order.event_time % 1_000:03}Z",
        "properties": {
            "order_id": order.order_id,
            "currency": order.currency,
            "total": order.total_amount_minor / 100,
            "discount": order.discount_minor / 100,
            "shipping": order.shipping_minor / 100,
            "payment_method": order.payment_method,
            "products": [
                {
                    "product_id": item.product_id,
                    "name": item.product_name,
                    "category": item.category,
                    "quantity": item.quantity,
                    "price": item.unit_price_minor / 100,
                }
                for item in order.items
            ],
        },
    }


def _block(payloads: list[bytes], times_ms: list[int]) -> Block:
    bounds = np.concatenate(([0], np.cumsum([len(each) for each in payloads])))
    count = len(payloads)
    watermarks = np.full(count, NO_WATERMARK_MS)
    return Block("bench", 0, b"".join(payloads), bounds, np.arange(count), np.array(times_ms), watermarks)


def measure(events: int, repeat: int) -> list[Row]:
    """Raises: RuntimeError: a format lost an order."""
    orders = list(generate(Spec(orders=events, users=max(1, events // 10))).events())
    times_ms = [order.event_time for order in orders]
    schema = avro_schema("OrderEvent")
    parsed, mapped = codec.parse_schema(schema), parse_mapping(shipped("segment")).of(OrderEvent)
    formats: list[tuple[str, Any, Callable[[OrderEvent], bytes]]] = [
        ("Avro", None, lambda order: codec.encode(order, _WRITER_ID, parsed)),
        ("JSON", None, codec.to_json),
        ("Segment by its mapping", mapped, lambda order: msgspec.json.encode(segment(order))),
    ]
    rows_of, turns = RevenueRows(), []
    for name, mapping, encode in formats:
        block = _block([encode(order) for order in orders], times_ms)
        decoder = BlockDecoder(ORDERS, "bench", lambda _: schema, 0, mapped=mapping)
        if decoder.decode(block).good != events:
            raise RuntimeError(f"{name}: {decoder.decode(block).good} of {events} orders are good")
        turns.append((name, block, decoder, [float("inf")] * 2))
    for _ in range(repeat):
        for _, block, decoder, best in turns:
            began = time.process_time()
            decoded = decoder.decode(block)
            best[0] = min(best[0], time.process_time() - began)
            rows_of(decoded, _SHARDS)
            best[1] = min(best[1], time.process_time() - began)
    return [
        Row(name, len(block.data) / events, best[0] * 1e6 / events, best[1] * 1e6 / events)
        for name, block, _, best in turns
    ]


def table(rows: list[Row]) -> str:
    avro = rows[0]
    lines = [f"{'':24}{'bytes':>8}{'decode µs':>12}{'÷ Avro':>8}{'rows, too':>12}{'÷ Avro':>8}"]
    lines += [
        f"{row.name:24}{row.size:8.0f}{row.decode_us:12.2f}{avro.decode_us / row.decode_us:8.2f}"
        f"{row.rows_us:12.2f}{avro.rows_us / row.rows_us:8.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def main(options: argparse.Namespace) -> int:
    print(table(measure(options.events, options.repeat)))
    return 0
