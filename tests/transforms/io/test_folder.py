from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline
from hypothesis import given
from hypothesis import strategies as st

from transforms.io.folder import _WRITERS, Rolling, WriteToFolder, _LinesFn, _Part, _PartCoder, _RollFn


class Cell:
    """State as Flink keeps it: what a checkpoint holds can be taken and put back."""

    def __init__(self) -> None:
        self.stored: bytes | None = None

    def read(self) -> _Part | None:
        return None if self.stored is None else _PartCoder().decode(self.stored)

    def write(self, part: _Part) -> None:
        self.stored = _PartCoder().encode(part)


class Bag:
    def __init__(self) -> None:
        self.items: tuple[bytes, ...] = ()

    def add(self, item: bytes) -> None:
        self.items += (item,)

    def read(self) -> tuple[bytes, ...]:
        return self.items

    def clear(self) -> None:
        self.items = ()


class Timer:
    is_set = False

    def set(self, _: Any) -> None:
        self.is_set = True

    def clear(self) -> None:
        self.is_set = False


class Writer:
    """One writer under a runner that fails when it is told to: what it wrote since the checkpoint stays."""

    def __init__(self, folder: Path, size_bytes: int = 100_000) -> None:
        self.fn = _RollFn(str(folder), Rolling(60, size_bytes))
        self.part, self.lines, self.old, self.end = Cell(), Bag(), Timer(), Timer()

    def take(self, rows: list[int]) -> None:
        content = b"".join(b'{"row":%d}\n' % row for row in rows)
        self.fn.process((0, content), self.part, self.lines, self.old, self.end)

    def grow_old(self) -> None:
        if self.old.is_set:
            self.old.is_set = False
            self.fn.when_old(self.part, self.lines)

    def finish(self) -> None:
        if self.end.is_set:
            self.fn.at_the_end(self.part, self.lines)

    def checkpoint(self) -> tuple[Any, ...]:
        return self.part.stored, self.lines.items, self.old.is_set, self.end.is_set

    def restore(self, checkpoint: tuple[Any, ...]) -> None:
        self.part.stored, self.lines.items, self.old.is_set, self.end.is_set = checkpoint


def rows_of(folder: Path) -> list[int]:
    lines = (line for part in sorted(folder.glob("*.jsonl")) for line in part.read_text().splitlines())
    return [json.loads(line)["row"] for line in lines]


def test_many_bundles_make_one_part_when_it_is_old(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for row in range(1_000):
        writer.take([row])
    assert rows_of(tmp_path) == []
    writer.grow_old()
    assert rows_of(tmp_path) == list(range(1_000))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_part_is_written_as_soon_as_it_is_large_enough(tmp_path: Path) -> None:
    writer = Writer(tmp_path, size_bytes=100)
    for row in range(25):
        writer.take([row])
    assert rows_of(tmp_path) == list(range(20))  # two parts of ten lines, of 100 and 110 bytes
    assert sum(map(len, writer.lines.items)) < 100


def test_the_end_of_the_input_writes_what_waits_and_nothing_for_nothing(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.take([1])
    writer.finish()
    writer.finish()
    assert rows_of(tmp_path) == [1]
    assert len(list(tmp_path.iterdir())) == 1


@given(
    steps=st.lists(
        st.one_of(st.lists(st.integers(0, 99), min_size=1, max_size=5), st.sampled_from(["old", "checkpoint", "fail"])),
        max_size=40,
    ),
    size_bytes=st.integers(1, 200),
)
def test_after_any_failures_each_row_is_there_and_no_part_has_two_names(
    steps: list[Any], size_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    writer = Writer(folder, size_bytes)
    writer.take([-1])
    checkpoint, since = writer.checkpoint(), []
    taken = [-1]
    for step in steps:
        if step == "checkpoint":
            checkpoint, since = writer.checkpoint(), []
        elif step == "fail":
            writer.restore(checkpoint)
            for rows in since:  # the source reads again what came since, perhaps in other bundles
                for row in rows:
                    writer.take([row])
        elif step == "old":
            writer.grow_old()
        else:
            writer.take(step)
            since.append(step)
            taken += step
    writer.finish()
    found = rows_of(folder)
    assert set(found) == set(taken)
    assert len(found) >= len(taken)
    assert len({part.name.rpartition("-")[0] for part in folder.iterdir()}) == 1


def test_lines_of_a_bundle_are_one_element_for_a_writer() -> None:
    fn = _LinesFn(lambda row: b'{"row":%d}' % row)
    fn.start_bundle()
    for row in range(3):
        assert list(fn.process(row)) == []
    (element,) = fn.finish_bundle()
    writer, content = element.value
    assert 0 <= writer < _WRITERS
    assert content == b'{"row":0}\n{"row":1}\n{"row":2}\n'
    fn.start_bundle()
    assert list(fn.finish_bundle()) == []


@pytest.mark.parametrize("rolling", [None, Rolling(60, 1 << 20)], ids=["by bundle", "rolling"])
def test_through_beam_every_row_is_in_a_part(rolling: Rolling | None, tmp_path: Path) -> None:
    with TestPipeline(runner=FnApiRunner()) as p:
        rows = p | beam.Create(range(100), reshuffle=False)
        rows | WriteToFolder(str(tmp_path), "table", lambda row: b'{"row":%d}' % row, rolling)
    assert sorted(rows_of(tmp_path / "table")) == list(range(100))
    assert not [path for path in (tmp_path / "table").iterdir() if path.name.startswith(".")]


def test_a_part_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ValueError, match="newer release"):
        _PartCoder().decode(b"\x02" + bytes(25))
