"""The source on Beam's own runner, in one process and in several: what happens when bundles land anywhere."""

from __future__ import annotations

import json
import os
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
@pytest.mark.timeout(180)
@pytest.mark.parametrize("workers", [1, 3])
def test_every_record_is_read_once_wherever_bundles_land(workers: int, topic: KafkaTopic, tmp_path: Path) -> None:
    """Each block is a bundle of its own."""
    flags = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner", f"--direct_num_workers={workers}"]
    if workers > 1:
        flags.append("--direct_running_mode=multi_processing")
    read = ReadBlocksFromKafka(
        topic, "tests", 4, 10 * SECOND, 3_600 * SECOND, until_end=True, block_messages=100, bundle_s=0
    )
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        pipeline | "Source" >> read | "Note" >> beam.Map(note, str(tmp_path))
    noted = [json.loads(line) for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    for partition in range(4):
        offsets = [offset for of, found, _ in noted if of == partition for offset in found]
        assert sorted(offsets) == list(range(_EACH))
    processes = [{pid for of, _, pid in noted if of == partition} for partition in range(4)]
    assert (max(map(len, processes)) > 1) == (workers > 1), "a reader moves between processes, if there are several"


def note(block: Block, folder: str) -> None:
    with (Path(folder) / str(os.getpid())).open("a") as file:
        file.write(json.dumps([block.partition, block.offsets.tolist(), os.getpid()]) + "\n")
