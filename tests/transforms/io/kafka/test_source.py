"""The source on Beam's own runner: what happens when bundles land anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from stack import Stack
from tests import live
from tests.build import SECOND, T0
from transforms.blocks import Block
from transforms.io.kafka import KafkaTopic, ReadBlocksFromKafka
from transforms.io.kafka.position import Position
from transforms.io.kafka.reader import Source
from transforms.io.kafka.source import _ReadBlocksFn
from transforms.io.kafka.waiting import Waiting

_EACH = 3_000


def test_a_reader_begins_with_what_is_there_as_its_backlog() -> None:
    source = Source("h:1", "orders", "tests", 10 * SECOND, 3_600 * SECOND)
    fn = _ReadBlocksFn(source, (71, 4, 9), 2, {0: 100, 1: 20, 2: 3, 3: 1_000})
    assert fn.initial_restriction(71) == Position(0, 3, backlog=1_100)
    assert fn.initial_restriction(9) == Position(2, 3, backlog=3)
    assert fn.restriction_size(71, Position(0, 3, backlog=7)) == 7


@pytest.fixture(scope="module")
def topic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaTopic]:
    with Stack(tmp_path_factory.mktemp("kafka"), ["kafka"], ports="free") as stack:
        messages = (
            live.Message(str(i).encode(), f"k-{i % 97}".encode(), T0 + i, partition)
            for i in range(_EACH)
            for partition in range(4)
        )
        live.fill_topic(stack, "orders", messages)
        yield KafkaTopic.look_up(stack.address("kafka"), "orders")


@pytest.mark.stack
@pytest.mark.parametrize("waiting", [True, False], ids=["a connection waits", "none does"])
def test_every_record_is_read_once_in_whatever_process_a_bundle_lands(
    waiting: bool, topic: KafkaTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block is a bundle of its own. In a process in which none ran before, no connection waits for it. Beam's own
    runner cannot show that: with several processes it forgets what some of them have left to read."""
    if not waiting:
        monkeypatch.setattr(Waiting, "take", lambda *_: None)
    read = ReadBlocksFromKafka(
        topic, "tests", 2, 10 * SECOND, 3_600 * SECOND, until_end=True, block_messages=1_000, bundle_s=0
    )
    flags = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        pipeline | "Source" >> read | "Note" >> beam.Map(note, str(tmp_path / "noted"))
    noted = [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]
    assert len(noted) > 4
    for partition in range(4):
        assert [offset for of, found in noted if of == partition for offset in found] == list(range(_EACH))


def note(block: Block, path: str) -> None:
    with Path(path).open("a") as file:
        file.write(json.dumps([block.partition, block.offsets.tolist()]) + "\n")
