"""Writes records.jsonl anew: what Debezium really sends, some of each kind. `python -m tests.cdc.record`"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from stack import Stack
from tests.cdc.capture import Capture, Record

FILE = Path(__file__).with_name("records.jsonl")
_OF_EACH = 6


def kind(record: Record) -> tuple[Any, ...]:
    envelope = record.envelope
    marks = tuple(name for name, _ in record.headers)
    if envelope is None:
        return (record.topic, "tombstone", marks)
    row = envelope.get("after") or {}
    return (record.topic, envelope["op"], envelope["source"]["snapshot"], "rating" in row, marks)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(folder, ["kafka", "postgres", "connect"], ports="free") as stack,
    ):
        capture = Capture(stack, Path(folder))
        capture.cdc("setup", "--sample_data")
        capture.cdc("register")
        capture.workload(600, seed=7)
        capture.cdc("snapshot", "products", "orders", "inventory_movements")
        records = capture.records(until=lambda seen: any(r.is_incremental("inventory_movements") for r in seen))
        capture.sql("TRUNCATE order_items")
        records += capture.records(until=lambda seen: any(r.op == "t" for r in seen))
        capture.close()
    of_kind = defaultdict(list)
    for record in records:
        of_kind[kind(record)].append(record)
    # The first, and the last: an incremental snapshot's last chunk differs from its first.
    chosen = [each for same in of_kind.values() for each in (*same[:_OF_EACH], *same[_OF_EACH:][-1:])]
    chosen.sort(key=lambda r: (r.timestamp_ms, r.topic, r.partition, r.offset))
    FILE.write_text("".join(record.line() + "\n" for record in chosen))
    print(f"{len(chosen)} records of {len(of_kind)} kinds")


if __name__ == "__main__":
    main()
