"""Other people's messages through Flink: by every shipped mapping, and in every framing, what was planted is found.

One job reads all of it: a topic for each mapping, and one topic with a partition for each framing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import msgspec
import pytest

from schemas.codec import from_fields
from schemas.events import OrderEvent
from schemas.mapping import SHIPPED
from stack import Stack
from stack.flink import Cluster
from tests import live
from tests.build import T0
from tests.foreign import an_order, stream
from tests.framed import FRAMINGS, framings

pytestmark = pytest.mark.stack

COUNT = 20_000
FRAMED = "framed.orders"
_STRAY = "shopify"  # the topic that is said to be of one format, and has a message of another

Place = tuple[str, int]  # topic, partition


class Planted(NamedTuple):
    """What a partition holds.

    Attributes:
      orders: what must be archived, in order.
      refused: offset → a part of the reason.
    """

    messages: list[live.Message]
    orders: list[OrderEvent]
    refused: dict[int, str]

    @property
    def ignored(self) -> int:
        return len(self.messages) - len(self.orders) - len(self.refused)


def mapped(name: str) -> Planted:
    planted = Planted([], [], {})
    for offset, each in enumerate(stream(name, COUNT, seed=7)):
        headers: Any = [(header, text.encode()) for header, text in each.headers.items()]
        planted.messages.append(live.Message(json.dumps(each.message).encode(), b"k", T0 + offset * 1_000, 0, headers))
        if each.order:
            planted.orders.append(each.order)
        elif each.fault:
            planted.refused[offset] = each.fault
    if name == _STRAY:
        planted.refused[len(planted.messages)] = "not plain JSON"
        planted.messages.append(live.Message(b"\0\0\0\0\1Avro", b"k", T0 + COUNT * 1_000, 0))
    return planted


def framed(registry_url: str) -> Iterator[Planted]:
    """The same orders in each framing; some cut short, and some that break a rule."""
    rng = random.Random(7)
    orders = [an_order(rng, number, ("CREATED", "CANCELLED"), ("EUR", "JPY", "KWD")) for number in range(COUNT)]
    for partition, frame in enumerate(framings(registry_url).values()):
        planted = Planted([], [], {})
        for offset, order in enumerate(orders):
            kind = offset % 20
            if kind == 7:
                order = msgspec.structs.replace(order, subtotal_minor=-1)
                planted.refused[offset] = "subtotal_minor is negative: -1"
            payload, headers = frame(order)
            if kind == 3:
                payload = payload[:-3]
                planted.refused[offset] = ""
            elif kind != 7:
                planted.orders.append(order)
            planted.messages.append(live.Message(payload, b"k", order.event_time, partition, headers))
        yield planted


def archived(folder: Path, place: Place) -> list[OrderEvent]:
    found = []
    for path in folder.rglob(f"{place[0]}-{place[1]:05d}-*.avro"):
        with path.open("rb") as stream:
            for fields in fastavro.reader(stream):
                fields["event_time"] = round(fields["event_time"].timestamp() * 1000)
                found.append(from_fields(fields, OrderEvent))
    return sorted(found, key=lambda order: order.event_time)


def letters(folder: Path) -> dict[Place, dict[int, str]]:
    found: dict[Place, dict[int, str]] = {}
    for part in folder.glob("*.jsonl"):
        for letter in map(json.loads, part.read_text().splitlines()):
            place = found.setdefault((letter["topic"], letter["partition"]), {})
            assert letter["offset"] not in place
            place[letter["offset"]] = letter["error_message"]
    return found


def test_every_shipped_mapping_and_every_framing_gives_the_oracles_records_and_ledger(
    live_stack: Stack, cluster: Cluster, pool: live.Workers, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    topics = {name: f"foreign.orders.{name}" for name in SHIPPED}
    planted: dict[Place, Planted] = {(topic, 0): mapped(name) for name, topic in topics.items()}
    planted |= {(FRAMED, partition): each for partition, each in enumerate(framed(live_stack.registry_url))}
    for (topic, _), each in planted.items():
        live.fill_topic(live_stack, topic, each.messages, len(FRAMINGS) if topic == FRAMED else 1)

    out = tmp_path / "archive"
    flags = [
        *live.on_cluster(cluster, pool, tmp_path),
        *(f"--input=kafka://{live_stack.address('kafka')}/{topic}" for topic in (*topics.values(), FRAMED)),
        *(f"--registry={live_stack.registry_url}", f"--output={out}", "--until=latest"),
        f"--format=auto,{topics[_STRAY]}=json",
        f"--mapping={','.join(f'{topic}={name}' for name, topic in topics.items())}",
    ]
    ledger = live.run_here(*flags, folder=tmp_path / "job", module="beam_pipelines.archive")
    said = capfd.readouterr().err

    refused = letters(out / "dead_letters")
    for place, each in planted.items():
        assert archived(out, place) == each.orders, place
        assert refused[place].keys() == each.refused.keys(), place
        assert all(each.refused[offset] in why for offset, why in refused[place].items()), place
        assert len(each.orders) > COUNT // 2 < 20 * len(each.refused), place
    good, bad = (sum(len(getattr(p, name)) for p in planted.values()) for name in ("orders", "refused"))
    ignored = sum(p.ignored for p in planted.values())
    assert ignored > COUNT // 20 * len(SHIPPED)
    counts = {"good": good, "dead_letters": bad, "late": 0, "duplicates": 0, "lost": 0, "ignored": ignored}
    assert ledger == {"in": good + bad, **counts}
    assert f"{topics[_STRAY]}: --format=json; its newest messages are plain JSON" in said
    assert f"{FRAMED}: --format=auto; its newest messages are" in said
    assert f"dead letters {bad:,}" in said
