from __future__ import annotations

import json
import struct
import time
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
    """One writer's state and timers, under a runner that can put back those of a checkpoint."""

    def __init__(self, fn: _RollFn, key: int = 0) -> None:
        self.fn, self.key = fn, key
        self.part, self.lines, self.old, self.end = Cell(), Bag(), Timer(), Timer()

    def take(self, content: bytes) -> None:
        self.fn.process((self.key, content), self.part, self.lines, self.old, self.end)

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


class _Clock:
    """Each instance is set up at least a second after the one before."""

    def __init__(self) -> None:
        self._now, self._last_s = time.time, 0.0

    def __call__(self) -> float:
        self._last_s = max(self._last_s + 1, self._now())
        return self._last_s


_CLOCK = _Clock()


def roll_fn(folder: Path, size_bytes: int = 100_000, run: bytes = b"of test") -> _RollFn:
    fn = _RollFn(str(folder), Rolling(60, size_bytes), run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", _CLOCK)
        fn.setup()
    return fn


def lines_of(*rows: int) -> bytes:
    return b"".join(b'{"row":%d}\n' % row for row in rows)


class Attempt:
    """A job that reads rows 0, 1, 2, … from a checkpoint on. What it has written when it fails stays.

    Its lines name the attempt, as a row that is found again may differ: the writer that a bundle comes to differs too.
    """

    def __init__(self, number: int, folder: Path, size_bytes: int, checkpoint: tuple[Any, ...] | None = None) -> None:
        fn = roll_fn(folder, size_bytes)
        self.lines_fn = _LinesFn(lambda row: b'{"row":%d,"attempt":%d}' % (row, number))
        self.lines_fn.setup()
        self.writers = [Writer(fn, key) for key in range(_WRITERS)]
        self.position = 0
        if checkpoint is not None:
            self.position, states = checkpoint
            for writer, state in zip(self.writers, states, strict=True):
                writer.restore(state)

    def checkpoint(self) -> tuple[Any, ...]:
        return self.position, [writer.checkpoint() for writer in self.writers]

    def read(self, rows: int) -> None:
        self.lines_fn.start_bundle()
        for row in range(self.position, self.position + rows):
            assert list(self.lines_fn.process(row)) == []
        for element in self.lines_fn.finish_bundle():
            writer, content = element.value
            self.writers[writer].take(content)
        self.position += rows

    def grow_old(self, of: int | None = None) -> None:
        for writer in self.writers if of is None else [self.writers[of]]:
            writer.grow_old()

    def finish(self) -> None:
        for writer in self.writers:
            writer.finish()


def rows_of(folder: Path) -> list[int]:
    lines = (line for part in sorted(folder.glob("*.jsonl")) for line in part.read_text().splitlines())
    return [json.loads(line)["row"] for line in lines]


def test_many_bundles_make_one_part_when_it_is_old(tmp_path: Path) -> None:
    writer = Writer(roll_fn(tmp_path))
    for row in range(1_000):
        writer.take(lines_of(row))
    assert rows_of(tmp_path) == []
    writer.grow_old()
    assert rows_of(tmp_path) == list(range(1_000))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_part_is_written_as_soon_as_it_is_large_enough(tmp_path: Path) -> None:
    writer = Writer(roll_fn(tmp_path, size_bytes=100))
    for row in range(25):
        writer.take(lines_of(row))
    assert rows_of(tmp_path) == list(range(20))  # two parts of ten lines, of 100 and 110 bytes
    assert sum(map(len, writer.lines.items)) < 100


def test_the_end_of_the_input_writes_what_waits_and_nothing_for_nothing(tmp_path: Path) -> None:
    writer = Writer(roll_fn(tmp_path))
    writer.take(lines_of(1))
    writer.finish()
    writer.finish()
    assert rows_of(tmp_path) == [1]
    assert len(list(tmp_path.iterdir())) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(1, 5)),
        st.tuples(st.just("old"), st.integers(0, _WRITERS - 1)),
        st.tuples(st.just("checkpoint")),
        st.tuples(st.just("fail")),
        st.tuples(st.just("given up, reads on"), st.integers(0, 9), st.integers(1, 5)),
        st.tuples(st.just("given up, grows old"), st.integers(0, 9)),
    ),
    max_size=40,
)


@given(steps=STEPS, size_bytes=st.integers(1, 300), drained=st.booleans())
def test_after_any_failures_each_row_is_there_exactly_once(
    steps: list[Any], size_bytes: int, drained: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    job = Attempt(0, folder, size_bytes)
    given_up: list[Attempt] = []
    checkpoint = job.checkpoint()
    for step, *of in steps:
        if step == "read":
            job.read(*of)
        elif step == "old":
            job.grow_old(*of)
        elif step == "checkpoint":
            checkpoint = job.checkpoint()
        elif step == "fail":
            given_up.append(job)
            job = Attempt(len(given_up), folder, size_bytes, checkpoint)
        elif drained and given_up:
            which, *rows = of
            late = given_up[which % len(given_up)]
            if rows:
                late.read(*rows)
            else:
                late.grow_old()
    job.read(max(0, 100 - job.position))
    if drained:
        job.finish()
    else:  # no row ever comes again
        job.grow_old()
    assert sorted(rows_of(folder)) == list(range(job.position))


def test_a_failure_before_the_first_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    first = Attempt(0, tmp_path, size_bytes=1)
    for _ in range(20):
        first.read(1)
    assert {part.name.split("-")[1] for part in tmp_path.iterdir()} == {
        f"{b'of test'.hex()}{key:02x}" for key in range(4)
    }
    second = Attempt(1, tmp_path, size_bytes=100_000)
    second.read(20)
    assert rows_of(tmp_path) == []
    second.grow_old()
    assert rows_of(tmp_path) == list(range(20))


def test_an_attempt_that_was_given_up_neither_replaces_nor_deletes_parts_and_the_newer_one_deletes_its(
    tmp_path: Path,
) -> None:
    given_up, writer = Writer(roll_fn(tmp_path, size_bytes=25)), Writer(roll_fn(tmp_path))
    given_up.take(lines_of(1))
    writer.restore(given_up.checkpoint())
    for row in (2, 3):
        writer.take(lines_of(row))
        writer.grow_old()
    given_up.take(lines_of(2, 3))
    assert sorted(rows_of(tmp_path)) == [1, 1, 2, 2, 3, 3]
    writer.finish()
    assert rows_of(tmp_path) == [1, 2, 3]


def test_parts_of_others_are_left_alone(tmp_path: Path) -> None:
    others = [Writer(roll_fn(tmp_path, 1, run)) for run in (b"another", b"of tesu")]
    others.append(Writer(others[0].fn, key=1))
    for row, other in enumerate(others):
        other.take(lines_of(row))
    (tmp_path / "part-made-by-hand.jsonl").write_bytes(lines_of(3))
    writer = Writer(roll_fn(tmp_path, 1))
    writer.take(lines_of(4))
    Writer(roll_fn(tmp_path, 1_000)).take(lines_of(4))
    assert sorted(rows_of(tmp_path)) == [0, 1, 2, 3]


def test_a_savepoint_of_before_there_were_attempts_goes_on(tmp_path: Path) -> None:
    for number, row in enumerate((1, 2, 3)):
        (tmp_path / f"part-{b'a writer'.hex()}-{number:08d}.jsonl").write_bytes(lines_of(row))
    writer = Writer(roll_fn(tmp_path))
    writer.restore((struct.pack(">B8sqq?", 1, b"a writer", 1, 10, True), (lines_of(2),), True, True))
    writer.take(lines_of(3))
    assert rows_of(tmp_path) == [1]
    writer.grow_old()
    assert rows_of(tmp_path) == [1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_may_have_the_signs_of_a_glob_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]*"
    Writer(roll_fn(folder, size_bytes=1)).take(lines_of(1))
    assert rows_of(folder) == [1]
    Writer(roll_fn(folder)).take(lines_of(1))
    assert rows_of(folder) == []


def test_lines_of_a_bundle_are_one_element_for_a_writer_and_the_first_one_wakes_all() -> None:
    fn = _LinesFn(lambda row: b'{"row":%d}' % row)
    fn.setup()
    fn.start_bundle()
    assert list(fn.process(9)) == []
    woken = dict(element.value for element in fn.finish_bundle())
    assert sorted(woken) == list(range(_WRITERS))
    assert sorted(woken.values()) == [b""] * (_WRITERS - 1) + [b'{"row":9}\n']
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
        _PartCoder().decode(b"\x03" + bytes(33))
