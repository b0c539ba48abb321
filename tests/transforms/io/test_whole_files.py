"""Files read abreast, against the same files read record by record as the jobs read them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas import codec
from schemas.container import Container
from schemas.events import ClickstreamEvent, OrderEvent, avro_schema
from tests.build import click, item, order
from transforms.decode import ORDERS, BlockDecoder, DecodedBlock
from transforms.domain.archive import File, sort_out
from transforms.io import whole_files
from transforms.io.archive_files import container
from transforms.io.files import blocks_of, lines
from transforms.io.whole_files import Unreadable, read_files

NOW = 1_800_000_000_000
SCHEMA = codec.parse_schema(avro_schema("OrderEvent"))


def decoder() -> BlockDecoder[OrderEvent]:
    return BlockDecoder(ORDERS, "backtest", lambda _: None, 0)


def archived(path: Path, orders: list[OrderEvent]) -> None:
    """In blocks of 64 KiB, as the archiver writes them."""
    files: dict[File, Any] = {}
    sort_out([(i, 0, "", codec.encode_datum(o, SCHEMA)) for i, o in enumerate(orders)], 1 << 40, files)
    (contents,) = files.values()
    path.write_bytes(container(OrderEvent, contents.blocks(), path.name))


def some_orders(prefix: str, count: int) -> list[OrderEvent]:
    rng = random.Random(prefix)
    return [
        order(f"{prefix}-{i}", amount=rng.randrange(1 << 40), items=[item(product_name="ş" * rng.randrange(90))] * n)
        for i, n in enumerate(rng.choices(range(4), k=count))
    ]


def one_by_one(paths: list[Path]) -> Iterator[DecodedBlock[OrderEvent]]:
    for path in paths:
        with path.open("rb") as stream:
            if path.suffix == ".jsonl":
                blocks = blocks_of(str(path), lines(stream), NOW)
            else:
                file = Container(stream)
                blocks = blocks_of(str(path), iter(file), NOW, "avro", file.writer.schema)
            yield from map(decoder().decode, blocks)


def content(decoded: Iterator[Any]) -> tuple[Counter[str], list[tuple[str, int, str, str]], list[str]]:
    """Ids of good orders with their amounts; place and reason of the bad; files that cannot be read."""
    good: Counter[str] = Counter()
    bad, unreadable = [], []
    for each in decoded:
        if isinstance(each, Unreadable):
            unreadable.append(each.path)
            continue
        for part in each.parts:
            amounts = part.columns.ints["total_amount_minor"][part.rows].tolist()
            ids = part.columns.texts("order_id", part.rows)
            good.update(f"{i} {a}" for i, a in zip(ids, amounts, strict=True))
        good.update(f"{o.order_id} {o.total_amount_minor}" for o in each.records)
        bad += [(b.topic, b.offset, b.error_class, b.error_message) for b in each.bad]
    return good, sorted(bad), sorted(unreadable)


@pytest.fixture
def abreast(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the blocks that were stepped through together."""
    seen: list[int] = []
    ends = whole_files.record_ends

    def counted(*args: Any) -> Any:
        found, right = ends(*args)
        seen.append(int(right.sum()))
        return found, right

    monkeypatch.setattr(whole_files, "record_ends", counted)
    return seen


def test_many_files_give_what_each_gives(tmp_path: Path, abreast: list[int]) -> None:
    paths = []
    for i in range(24):
        paths.append(tmp_path / f"{i:02}.avro")
        archived(paths[-1], some_orders(f"f{i}", 1 + 40 * i))
    (tmp_path / "lines.jsonl").write_bytes(b"".join(codec.to_json(o) + b"\n" for o in some_orders("j", 30)))
    paths.append(tmp_path / "lines.jsonl")
    good, bad, unreadable = content(read_files([str(p) for p in paths], decoder(), NOW))
    assert (good, bad) == content(one_by_one(paths))[:2]
    assert (good.total(), bad, unreadable) == (24 + 40 * 276 + 30, [], [])
    assert sum(abreast) >= 40


def test_a_bad_record_is_named_by_its_place_and_its_neighbours_are_good(tmp_path: Path, abreast: list[int]) -> None:
    orders = some_orders("o", 9_000)
    orders[700] = order("negative", amount=-5)
    orders[8_500] = order("", amount=5)
    archived(tmp_path / "a.avro", orders)
    archived(tmp_path / "b.avro", some_orders("b", 50))
    paths = [tmp_path / "a.avro", tmp_path / "b.avro"]
    good, bad, _ = content(read_files([str(p) for p in paths], decoder(), NOW))
    assert (good, bad) == content(one_by_one(paths))[:2]
    assert [(Path(topic).name, offset) for topic, offset, _, _ in bad] == [("a.avro", 700), ("a.avro", 8_500)]
    assert good.total() == 9_048
    assert sum(abreast) >= 16


@pytest.mark.parametrize("seed", range(6))
def test_broken_bytes_cost_what_they_cost_the_jobs(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "o.avro"
    with path.open("wb") as out:
        codec.write_container(out, OrderEvent, [])
    orders = some_orders("o", 6_000)
    raw = [codec.encode_datum(o, SCHEMA) for o in orders]
    if seed % 2:  # inside a record, before it is packed
        broken = bytearray(raw[3_000])
        for _ in range(1 + seed):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        raw[3_000] = bytes(broken)
    files: dict[File, Any] = {}
    sort_out([(i, 0, "", datum) for i, datum in enumerate(raw)], 1 << 40, files)
    (contents,) = files.values()
    data = bytearray(container(OrderEvent, contents.blocks(), "o"))
    if not seed % 2:  # in a packed block
        data[rng.randrange(2_000, len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    good, bad, _ = content(read_files([str(path)], decoder(), NOW))
    assert (good, bad) == content(one_by_one([path]))[:2]
    assert good.total() > 5_000


def test_files_that_are_none_are_named_and_clicks_are_bad_orders(tmp_path: Path) -> None:
    (tmp_path / "empty.avro").touch()
    (tmp_path / "text.avro").write_text("order_id\n")
    with (tmp_path / "clicks.avro").open("wb") as out:
        codec.write_container(out, ClickstreamEvent, [click(f"c-{i}") for i in range(3)])
    archived(tmp_path / "good.avro", some_orders("g", 5))
    names = ["empty.avro", "text.avro", "clicks.avro", "good.avro", "gone.avro"]
    good, bad, unreadable = content(read_files([str(tmp_path / name) for name in names], decoder(), NOW))
    assert good.total() == 5
    assert [(Path(topic).name, offset) for topic, offset, _, _ in bad] == [("clicks.avro", i) for i in range(3)]
    assert [Path(path).name for path in unreadable] == ["empty.avro", "gone.avro", "text.avro"]
