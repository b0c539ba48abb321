"""Every version of a schema that was ever registered, and whether today's readers can read what it wrote."""

from __future__ import annotations

import copy
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.read import SchemaResolutionError
from hypothesis import Phase, given, settings

import schemas
from schemas import codec
from schemas.events import avro_schema
from tests.strategies import avro_data

AVRO = Path(schemas.__file__).parent / "avro"
NAMES = sorted(path.stem for path in AVRO.glob("*.avsc"))


def history(name: str) -> list[dict[str, Any]]:
    """The registered versions of a schema, oldest first."""
    paths = sorted((AVRO / "history" / name).glob("*.avsc"), key=lambda path: int(path.stem))
    assert [path.stem for path in paths] == [str(i + 1) for i in range(len(paths))], f"{name}: versions have a gap"
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def check_backward(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Writes whatever `old` allows and reads it with `new`. Raises what fastavro raises when that fails."""
    writer, reader = codec.parse_schema(old), codec.parse_schema(new)

    @settings(max_examples=60, derandomize=True, database=None, phases=[Phase.generate])
    @given(avro_data(old))
    def reads(datum: Any) -> None:
        raw = io.BytesIO()
        fastavro.schemaless_writer(raw, writer, datum)
        raw.seek(0)
        fastavro.schemaless_reader(raw, writer, reader)
        assert not raw.read()

    reads()


def test_every_schema_has_a_history() -> None:
    assert sorted(path.name for path in (AVRO / "history").iterdir()) == NAMES
    assert "OrderEvent" in NAMES
    assert all(history(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_newest_version_in_the_history_is_the_schema_itself(name: str) -> None:
    assert history(name)[-1] == avro_schema(name), f"{name}.avsc has changed: add it to avro/history/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_the_current_schema_reads_what_every_version_wrote(name: str) -> None:
    for old in history(name):
        check_backward(old, avro_schema(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_version_reads_what_the_one_before_it_wrote(name: str) -> None:
    for old, new in itertools.pairwise(history(name)):
        check_backward(old, new)


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(f for f in schema["fields"] if f["name"] == name)


def _remove_symbol(schema: dict[str, Any]) -> None:
    _field(schema, "order_status")["type"]["symbols"].remove("REFUNDED")


def _add_item_field(schema: dict[str, Any]) -> None:
    _field(schema, "items")["type"]["items"]["fields"].append({"name": "weight_g", "type": "int"})


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["fields"].append({"name": "channel", "type": "string"}),
        lambda s: _field(s, "total_amount_minor").update(type="int"),
        lambda s: _field(s, "currency").update(type="long"),
        lambda s: _field(s, "user_id").update(name="customer_id"),
        lambda s: s.update(name="Order"),
        _remove_symbol,
        _add_item_field,
    ],
    ids=["required field", "narrower type", "other type", "renamed field", "renamed record", "symbol", "item field"],
)
def test_an_incompatible_change_is_found(change: Callable[[dict[str, Any]], None]) -> None:
    new = copy.deepcopy(avro_schema("OrderEvent"))
    change(new)
    with pytest.raises((SchemaResolutionError, ValueError)):
        check_backward(avro_schema("OrderEvent"), new)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["fields"].append({"name": "channel", "type": ["null", "string"], "default": None}),
        lambda s: s["fields"].pop(0),
        lambda s: _field(s, "order_status")["type"]["symbols"].append("LOST"),
        lambda s: s["fields"].reverse(),
        lambda s: _field(s, "user_id").update(name="customer_id", aliases=["user_id"]),
    ],
    ids=["optional field", "field gone", "new symbol", "other order", "renamed field with alias"],
)
def test_a_compatible_change_is_let_through(change: Callable[[dict[str, Any]], None]) -> None:
    new = copy.deepcopy(avro_schema("OrderEvent"))
    change(new)
    check_backward(avro_schema("OrderEvent"), new)
