"""The archive's step: whatever fails, is cut or read again, the same files with the same records, each once."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import apache_beam as beam
import fastavro
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.events import ClickstreamEvent, avro_schema
from schemas.times import END_MS
from tests import build
from tests.build import HOUR, MINUTE, T0
from tests.transforms.test_keyed_state import Cells
from transforms import archive_topic, keyed_state
from transforms.archive import (
    CLICKSTREAM,
    ORDERS_TABLE,
    ArchiveFiles,
    ArchiveRows,
    Records,
    Store,
    account_of,
)
from transforms.archive_topic import _ArchiveTopicFn, topic_id_in
from transforms.decode import BlockDecoder
from transforms.domain import archive as domain
from transforms.domain.account import DAY_MS, Read, read_of
from transforms.domain.archive import Row
from transforms.errors import ATTEMPTS_HEADER
from transforms.io import archive_files
from transforms.io.archive_files import AccountFolder, ArchiveFolder
from transforms.ledger import Counts, SumCounts
from transforms.sharded_rows import encode_rows

KEEP_MS = 10 * MINUTE
CLICK_SCHEMA = codec.parse_schema(avro_schema("ClickstreamEvent"))


def row(offset: int, event_id: str | None = None, at: int = T0) -> Row:
    click = build.click(f"c-{offset}" if event_id is None else event_id, at=at)
    return offset, at, click.event_id, codec.encode_datum(click, CLICK_SCHEMA)


class _Timer:
    def __init__(self) -> None:
        self.at: list[Timestamp] = []

    def set(self, at: Timestamp) -> None:
        self.at.append(at)


class Job:
    """The step with its state on one partition, as a runner drives it: bundles that are committed or fail."""

    def __init__(self, folder: Path, per_file: int = 10, flush_every_s: float | None = 60, *, files: bool = True):
        write = ArchiveFolder(str(folder), ClickstreamEvent, CLICKSTREAM.id_of).write if files else None
        accounts = AccountFolder(str(folder / "accounts")) if files else None
        self.ends: dict[int, int] | OSError = {3: 0}
        self.topic_id = "the-first"
        self._store = Store(write, True, per_file, flush_every_s, KEEP_MS, accounts, self._ends)
        self.cells, self.counts, self.data = defaultdict[int, Cells](Cells), Counts(), list[bytes]()
        self.expiry, self.flush_timer, self.end_timer = _Timer(), _Timer(), _Timer()
        self.restart()

    def _ends(self) -> tuple[str, dict[int, int]]:
        if isinstance(self.ends, OSError):
            raise self.ends
        return self.topic_id, self.ends

    def restart(self) -> None:
        """Another worker, with nothing in its memory."""
        self.fn = _ArchiveTopicFn(CLICKSTREAM, "clicks", self._store)
        self.fn.setup()

    def bundle(self, rows: list[Row], *, commit: bool = True, number: int = 3, read: Read | None = None) -> None:
        self.fn.start_bundle()
        if read is None and number >= 0:
            read = read_of(*np.array([row[:2] for row in rows]).T, [], [], [], 0)
        timers, cells = (self.expiry, self.flush_timer, self.end_timer), self.cells[number]
        data = list(self.fn.process((number, encode_rows([read, rows])), cells.token, cells.log, *timers))
        self._finish(data, commit)

    def flush(self, *, commit: bool = True, number: int = 3) -> None:
        self.fn.start_bundle()
        self.fn.flush(number, self.cells[number].token, self.cells[number].log)
        self._finish([], commit)

    def end(self) -> None:
        self.fn.start_bundle()
        self.fn.end(3, self.cells[3].token, self.cells[3].log)
        self._finish([], commit=True)

    def expire(self, at_ms: int) -> None:
        self.fn.start_bundle()
        self.fn.expire(3, Timestamp(micros=at_ms * 1000), self.cells[3].token, self.cells[3].log, self.expiry)
        self._finish([], commit=True)

    def _finish(self, data: list[bytes], commit: bool) -> None:
        counts = [tagged.value.value for tagged in self.fn.finish_bundle()]
        if commit:
            for cells in self.cells.values():
                cells.commit()
            self.counts = Counts(*map(sum, zip(self.counts, *counts, strict=True)))
            self.data += data
        else:
            for cells in self.cells.values():
                cells.rollback()

    def checkpoint(self) -> Any:
        return copy.deepcopy((self.cells[3].committed, self.counts))

    def go_back_to(self, checkpoint: Any) -> None:
        self.cells[3].committed, self.counts = copy.deepcopy(checkpoint)
        self.cells[3].rollback()
        self.restart()


def archive(folder: Path) -> dict[str, list[str]]:
    """Path → ids of the records in it, in order; as a reader with another library sees it."""
    found = {}
    for path in sorted(folder.rglob("*.avro")):
        with path.open("rb") as stream:
            records = list(fastavro.reader(stream))
        hours = {f"day={r['event_time']:%Y-%m-%d}/hour={r['event_time']:%H}" for r in records}
        assert hours == {str(path.parent.relative_to(folder))}
        found[str(path.relative_to(folder))] = [r["event_id"] for r in records]
    return found


def content(folder: Path) -> dict[str, bytes]:
    """All but where the topic ends, which is of now."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".ends.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def undisturbed(rows: list[Row], per_file: int) -> dict[str, list[str]]:
    """What the archive must be, said plainly."""
    files: dict[str, list[str]] = {}
    for offset, at, id_, _ in first_of_each(rows):
        moment = Timestamp(micros=at * 1000).to_utc_datetime()
        first = offset // per_file * per_file
        name = f"day={moment:%Y-%m-%d}/hour={moment:%H}/clicks-00003-{first:020}.avro"
        files.setdefault(name, []).append(id_)
    return files


def first_of_each(rows: list[Row]) -> list[Row]:
    ids: set[str] = set()
    return [row for row in rows if not (row[2] in ids or ids.add(row[2]))]


@st.composite
def partitions(draw: st.DrawFn) -> list[Row]:
    """Gaps between offsets, hours in any order, repeats."""
    rows, offset = [], draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 25))):
        id_ = f"c-{draw(st.integers(0, 30))}"
        rows.append(row(offset, id_, T0 + int(id_[2:]) % 3 * HOUR))
        offset += draw(st.sampled_from([1, 1, 1, 2, 9]))
    return rows


@settings(max_examples=30)
@given(data=st.data(), rows=partitions(), per_file=st.integers(1, 15))
def test_any_cuts_flushes_failures_and_restarts_give_the_same_files_and_counts(
    data: st.DataObject, rows: list[Row], per_file: int
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        job, at = Job(folder, per_file), 0
        saved = (job.checkpoint(), at)
        for _ in range(data.draw(st.integers(0, 16))):
            match data.draw(st.sampled_from(["read", "read", "read", "fail", "flush", "save", "crash"])):
                case "read" if at < len(rows):
                    to = data.draw(st.integers(at + 1, len(rows)))
                    job.bundle(rows[at:to])
                    at = to
                case "fail" if at < len(rows):
                    job.bundle(rows[at : data.draw(st.integers(at + 1, len(rows)))], commit=False)
                case "flush":
                    job.flush(commit=data.draw(st.booleans()))
                case "save":
                    saved = (job.checkpoint(), at)
                case "crash":
                    checkpoint, at = saved
                    job.go_back_to(checkpoint)
            seen = Counter(id_ for ids in archive(folder).values() for id_ in ids)
            assert not seen or max(seen.values()) == 1, "a reader sees a record twice"
            assert job.counts.records_in == job.counts.good + job.counts.duplicates
        if at < len(rows):
            job.bundle(rows[at:])
        job.end()
        assert archive(folder) == undisturbed(rows, per_file)
        once = len({row[2] for row in rows})
        assert job.counts == Counts(len(rows), once, duplicates=len(rows) - once)

        before = content(folder)
        again = Job(folder, per_file)
        again.bundle(rows)
        again.end()
        assert content(folder) == before


@settings(max_examples=30)
@given(rows=partitions(), lost=st.integers(0, 24), per_file=st.integers(1, 15), cut=st.integers(0, 24))
def test_a_topic_that_has_lost_its_beginning_takes_nothing_from_the_archive_and_adds_nothing_twice(
    rows: list[Row], lost: int, per_file: int, cut: int
) -> None:
    """Read anew after retention removed some, in the middle of a range whose file is there already."""
    once = first_of_each(rows)
    lost = min(lost, len(once) - 1)
    cut = lost + 1 + cut % (len(once) - lost)
    with TemporaryDirectory() as name:
        folder = Path(name)
        first = Job(folder, per_file)
        first.bundle(once[:cut])
        first.end()
        second = Job(folder, per_file)
        for part in (once[lost:cut], once[cut:]):
            if part:
                second.bundle(part)
                second.flush()
        assert archive(folder) == undisturbed(once, per_file)


def test_records_of_a_range_that_is_finished_join_its_file_once(tmp_path: Path) -> None:
    """No runner that keeps a partition in order brings them; one that does not must lose none."""
    job = Job(tmp_path)
    job.bundle([row(0), row(2), row(11)])
    job.bundle([row(1), row(12)])
    job.bundle([row(1), row(3)], commit=False)
    job.bundle([row(1), row(3), row(13)])
    job.end()
    assert list(archive(tmp_path).values()) == [["c-0", "c-2", "c-1", "c-3"], ["c-11", "c-12", "c-13"]]
    assert job.counts == Counts(8, 7, duplicates=1)


def test_a_file_is_written_when_its_range_is_over_and_open_ones_when_it_is_time(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.bundle([row(0), row(1)])
    assert archive(tmp_path) == {}
    assert job.counts == Counts()
    job.flush()
    assert [len(ids) for ids in archive(tmp_path).values()] == [2]
    job.bundle([row(2), row(10)])
    assert [len(ids) for ids in archive(tmp_path).values()] == [3]
    assert job.counts == Counts(3, 3)
    job.end()
    assert [len(ids) for ids in archive(tmp_path).values()] == [3, 1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.avro")}
    job.flush()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.avro")} == before


def test_timers_flush_while_input_goes_on_and_write_the_rest_when_it_ends(tmp_path: Path) -> None:
    endless, bounded = Job(tmp_path), Job(tmp_path, flush_every_s=None)
    for job in (endless, bounded):
        job.bundle([row(0)])
        job.bundle([row(1)])
        assert [at.micros for at in job.end_timer.at] == [END_MS * 1000]
    assert len(endless.flush_timer.at) == 1
    endless.flush()
    endless.bundle([row(2)])
    assert len(endless.flush_timer.at) == 2
    assert bounded.flush_timer.at == []


def test_ids_are_forgotten_when_a_repeat_would_be_late_and_files_are_not(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.bundle([row(0), row(1)])
    (due,) = job.expiry.at
    assert T0 + KEEP_MS < due.micros / 1000 <= T0 + KEEP_MS + MINUTE + KEEP_MS / 8
    job.bundle([row(2, "c-0")])
    assert job.counts.duplicates == 1
    job.expire(due.micros // 1000)
    assert len(job.expiry.at) == 1
    job.bundle([row(3, "c-0", T0 + HOUR)])
    job.restart()
    job.end()
    assert list(archive(tmp_path).values()) == [["c-0", "c-1"], ["c-0"]]


def test_state_is_a_snapshot_of_little_more_than_the_open_files(tmp_path: Path) -> None:
    job = Job(tmp_path, per_file=10_000)
    size = 0
    for start in range(0, 20_000, 500):
        job.bundle([row(i, at=T0 + i * 1_000) for i in range(start, start + 500)])
        job.expire(T0 + start * 1_000)
        size = max(size, job.cells[3].log.bytes)
    raw = len(row(0)[3]) * 10_000
    assert size < raw, "compressed, and a finished range is freed"
    job.restart()
    job.end()
    assert sum(map(len, archive(tmp_path).values())) == 20_000


def test_without_a_folder_repeats_are_told_and_no_record_is_kept(tmp_path: Path) -> None:
    job = Job(tmp_path, files=False)
    job.bundle([row(0), row(1, "c-0"), row(2)])
    job.restart()
    job.bundle([row(3, "c-2"), row(4)])
    assert job.counts == Counts(5, 3, duplicates=2)
    assert list(tmp_path.iterdir()) == []
    assert job.end_timer.at == job.flush_timer.at == []
    assert all(row(0)[3] not in entry for entry in job.cells[3].log.entries)
    with TestPipeline(runner=FnApiRunner()) as p:
        records = p | beam.Create(job.data) | Records(CLICKSTREAM)
        assert_that(records | beam.Map(lambda click: click.event_id), equal_to(["c-0", "c-2", "c-4"]))


OLDER = {**avro_schema("ClickstreamEvent")}
OLDER["fields"] = [field for field in OLDER["fields"] if field["name"] not in ("referrer", "category")]


@contextmanager
def a_release_ago() -> Iterator[None]:
    """Two fields of clicks are not there yet."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (archive_topic, archive_files):
            patch.setattr(module, "avro_schema", lambda _: OLDER)
        yield


@settings(max_examples=20)
@given(
    rows=partitions(),
    per_file=st.integers(1, 15),
    cuts=st.lists(st.integers(0, 25), max_size=3),
    files=st.booleans(),
    snapshot=st.booleans(),
    flush=st.booleans(),
)
def test_state_of_an_older_schema_goes_on_and_gives_the_files_of_a_job_that_always_had_this_one(
    rows: list[Row], per_file: int, cuts: list[int], files: bool, snapshot: bool, flush: bool
) -> None:
    older = codec.parse_schema(OLDER)
    old = [(offset, at, id_, codec.encode_datum(build.click(id_, at=at), older)) for offset, at, id_, _ in rows]
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "_BLOCK_BYTES", 150)  # two records: some are compressed by then
        patch.setattr(archive_topic, "avro_history", lambda _: [OLDER, avro_schema("ClickstreamEvent")])
        if snapshot:
            patch.setattr(keyed_state, "_SMALL_LOG_BYTES", 0)
        folder, expected = Path(name, "a"), Path(name, "b")
        at, *more = sorted({min(cut, len(rows)) for cut in (*cuts, 0)})
        with a_release_ago():
            job = Job(folder, per_file, files=files)
            for to in more:
                job.bundle(old[at:to])
                at = to
            if flush and files:
                job.flush()
        upgraded = Job(folder, per_file, files=files)
        upgraded.cells, upgraded.counts = job.cells, job.counts
        job = upgraded
        if at < len(rows):
            job.bundle(rows[at:])
        job.end()
        always = Job(expected, per_file, files=files)
        always.bundle(rows)
        always.end()
        assert archive(folder) == (undisturbed(rows, per_file) if files else {})
        assert job.counts == always.counts
        found, wanted = content(folder), content(expected)
        # What the older release had finished, or had written last, stays as it is.
        left = {path for path, written in found.items() if codec.canonical(OLDER).encode() in written}
        assert {path: found[path] for path in found.keys() - left} == {
            path: wanted[path] for path in wanted.keys() - left
        }


def test_state_of_a_schema_that_is_not_known_is_refused_with_what_to_do(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.bundle([row(0)])
    entry = job.cells[3].log.entries[0]
    job.cells[3].log.entries[0] = entry[:2] + bytes(4) + entry[6:]
    job.restart()
    with pytest.raises(ValueError, match="start the job anew"):
        job.flush()


# Rows


def rows_of(table: Any, block: Any, fetch: Any = build.fetch) -> dict[int, list[Row]]:
    decoded = BlockDecoder(table.kind, "job", fetch, 0).decode(block)
    return ArchiveRows(table)(decoded, 32)


def test_rows_of_a_block_are_its_good_records_with_the_bytes_they_had() -> None:
    orders = [build.order("o-1", at=T0), build.order("o-1", status="SHIPPED", at=T0 + 1), build.order("ö-2", at=T0 + 2)]
    payloads = [*map(build.payload, orders)]
    block = build.block([b"junk", *payloads, None], first_offset=7, times_ms=T0, partition=2)
    assert rows_of(ORDERS_TABLE, block) == {
        2: [
            (8, T0, "CREATED o-1", payloads[0][5:]),
            (9, T0 + 1, "SHIPPED o-1", payloads[1][5:]),
            (10, T0 + 2, "CREATED ö-2", payloads[2][5:]),
        ]
    }
    assert rows_of(ORDERS_TABLE, build.block([b"junk"])) == {}


def test_records_of_other_schemas_are_rewritten_in_ours_and_stay_in_order() -> None:
    """One with a field more goes by columns, one with a field less alone."""
    ours = avro_schema("ClickstreamEvent")
    more = {**ours, "fields": [*ours["fields"], {"name": "extra", "type": "string", "default": "x"}]}
    less = {**ours, "fields": [f for f in ours["fields"] if f["name"] != "referrer"]}
    schemas = {2: ours, 12: more, 22: less}
    clicks = [build.click(f"c-{i}", at=T0 + i) for i in range(6)]
    payloads = []
    for i, click in enumerate(clicks):
        id_ = [2, 12, 22][i % 3]
        payload = build.payload(click, 2)[5:]
        if id_ == 12:
            payload += b"\x02y"
        if id_ == 22:
            payload = payload[:-1]  # the branch of null
        payloads.append(b"\0" + id_.to_bytes(4, "big") + payload)
    found = rows_of(CLICKSTREAM, build.block(payloads, times_ms=T0), schemas.__getitem__)
    assert found == {0: [(i, T0 + i, f"c-{i}", build.payload(clicks[i])[5:]) for i in range(6)]}


def test_files_have_keys_of_their_own() -> None:
    lines = [codec.to_json(build.click(f"c-{i}")) for i in range(2)]
    first, second = (
        rows_of(CLICKSTREAM, build.block(lines, encoding="json", topic=path)) for path in ("a.jsonl", "b.jsonl")
    )
    assert first.keys() != second.keys()
    assert list(first.values()) == list(second.values())
    assert [row[2] for row in next(iter(first.values()))] == ["c-0", "c-1"]


# Accounts


class Slot(NamedTuple):
    """What an offset of a partition holds."""

    offset: int
    kind: str
    time_ms: int  # of the record; the event's may be another
    row: Row

    @property
    def day(self) -> str:
        return f"{Timestamp(micros=self.time_ms * 1000).to_utc_datetime():%Y-%m-%d}"


@st.composite
def slots(draw: st.DrawFn) -> list[Slot]:
    """Refused records among good ones, repeats, days in any order, offsets that hold nothing."""
    found, offset, ids = [], draw(st.integers(0, 12)), set[str]()
    for _ in range(draw(st.integers(1, 25))):
        id_ = f"c-{draw(st.integers(0, 30))}"
        kind = draw(st.sampled_from(["good", "good", "good", "dead_letters", "late"]))
        if kind == "good" and id_ in ids:
            kind = "duplicates"
        ids.update([id_] if kind == "good" else [])
        time_ms = T0 + draw(st.sampled_from([0, 0, 0, 1, -1])) * DAY_MS
        found.append(Slot(offset, kind, time_ms, row(offset, id_, T0 + int(id_[2:]) % 3 * HOUR * 8)))
        offset += draw(st.sampled_from([1, 1, 1, 1, 4, 25]))
    return found


def take_in(job: Job, read: list[Slot], *, lost: int = 0, commit: bool = True) -> None:
    def of(kind: str) -> list[int]:
        return [slot.offset for slot in read if slot.kind == kind]

    places = np.array([(slot.offset, slot.time_ms) for slot in read]).reshape(-1, 2).T
    rows = [slot.row for slot in read if slot.kind in ("good", "duplicates")]
    job.bundle(rows, read=read_of(*places, [], of("dead_letters"), of("late"), lost), commit=commit)


def accounts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("accounts/clicks-*.json"))]


def by_day(found: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter({(day, kind): 0 for a in found for day in a["days"] for kind in a["days"][day]}) + sum(
        (Counter({(day, kind): n for day, of in a["days"].items() for kind, n in of.items()}) for a in found),
        Counter[tuple[str, str]](),
    )


@settings(max_examples=40)
@given(data=st.data(), partition=slots(), per_file=st.integers(1, 15))
def test_accounts_leave_no_offset_out_and_are_the_same_after_any_cuts_failures_and_restarts(
    data: st.DataObject, partition: list[Slot], per_file: int
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        job, at = Job(folder, per_file), 0
        saved = (job.checkpoint(), at)
        for _ in range(data.draw(st.integers(0, 12))):
            to = data.draw(st.integers(at, len(partition)))
            match data.draw(st.sampled_from(["read", "read", "read", "fail", "flush", "expire", "save", "crash"])):
                case "read" if to > at:
                    take_in(job, partition[at:to])
                    at = to
                case "fail" if to > at:
                    take_in(job, partition[at:to], commit=False)
                case "flush":
                    job.flush(commit=data.draw(st.booleans()))
                case "expire":
                    job.expire(T0 - DAY_MS)
                case "save":
                    saved = (job.checkpoint(), at)
                case "crash":
                    checkpoint, at = saved
                    job.go_back_to(checkpoint)
            told = sum(n for a in accounts(folder) for n in a["archived"].values())
            assert told <= sum(map(len, archive(folder).values())), "an account tells of a record that is in no file"
        if at < len(partition):
            take_in(job, partition[at:])
        job.end()

        found = accounts(folder)
        wanted = Counter((slot.day, kind) for slot in partition for kind in ("in", slot.kind))
        assert by_day(found) == wanted
        assert [a["first"] for a in found] == [partition[0].offset, *(a["next"] for a in found[:-1])]
        assert found[-1]["next"] == partition[-1].offset + 1
        for a in found:
            missing = sum(each["offsets"] for each in a["missing"])
            assert a["next"] - a["first"] == sum(of["in"] for of in a["days"].values()) + missing
        archived = Counter[str]()
        for path, ids in archive(folder).items():
            archived[path[4:14]] += len(ids)
        assert sum((Counter(a["archived"]) for a in found), Counter()) == archived
        assert len(found) <= len(partition), "a range that nothing was read of has none"

        before = content(folder)
        again = Job(folder, per_file)
        take_in(again, partition)
        again.end()
        assert content(folder) == before


@settings(max_examples=40)
@given(partition=slots(), lost=st.integers(0, 24), per_file=st.integers(1, 15), cut=st.integers(0, 24))
def test_a_job_that_starts_anew_in_the_middle_of_a_range_counts_no_record_of_it_twice(
    partition: list[Slot], lost: int, per_file: int, cut: int
) -> None:
    lost = min(lost, len(partition) - 1)
    cut = lost + 1 + cut % (len(partition) - lost)
    with TemporaryDirectory() as name:
        folder = Path(name)
        first = Job(folder, per_file)
        take_in(first, partition[:cut])
        first.end()
        second = Job(folder, per_file)
        for part in (partition[lost:cut], partition[cut:]):
            if part:
                take_in(second, part)
                second.restart()
                second.flush()
        wanted = Counter((slot.day, kind) for slot in partition for kind in ("in", slot.kind))
        found = by_day(accounts(folder))
        assert {key: n for key, n in found.items() if key[1] != "good" and key[1] != "duplicates"} == {
            key: n for key, n in wanted.items() if key[1] != "good" and key[1] != "duplicates"
        }, "what repeats a record of before the beginning is told by its file, not by the new job"


def test_what_the_log_lost_is_told_with_the_days_it_may_be_of_also_when_it_is_all_there_is(tmp_path: Path) -> None:
    job = Job(tmp_path, per_file=10)
    job.bundle([row(0), row(1)])
    take_in(job, [], lost=30)
    job.restart()
    take_in(job, [Slot(35, "good", T0 + 2 * DAY_MS, row(35))], lost=3)
    job.end()
    first, second = accounts(tmp_path)
    assert (first["first"], first["next"], first["missing"]) == (0, 2, [])
    assert (second["first"], second["next"]) == (2, 36)
    assert second["missing"] == [{"after": "2026-09-21", "before": "2026-09-23", "offsets": 33, "lost": 33}]


def test_the_ends_of_the_topic_are_told_beside_and_a_broker_that_is_away_stops_nothing(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.ends = OSError("no broker")
    job.bundle([row(0)])
    job.flush()
    assert not (tmp_path / "accounts" / "clicks.ends.json").exists()
    job.ends = {0: 7, 3: 2}
    job.restart()
    job.bundle([row(1)])
    job.flush()
    told = json.loads((tmp_path / "accounts" / "clicks.ends.json").read_text())
    assert (told["topic"], told["topic_id"], told["ends"]) == ("clicks", "the-first", [[0, 7], [3, 2]])
    assert abs(told["asked_at"] / 1000 - time.time()) < 60


def test_a_folder_stays_that_of_the_topic_that_it_was_begun_with(tmp_path: Path) -> None:
    accounts = AccountFolder(str(tmp_path / "accounts"))
    job = Job(tmp_path)
    job.bundle([row(0)])
    job.flush()
    assert topic_id_in(accounts, "clicks") == "the-first"
    job.topic_id = "the-second"
    job.restart()
    job.bundle([row(1)])
    job.flush()
    assert topic_id_in(accounts, "clicks") == "the-first"
    ends = tmp_path / "accounts" / "clicks.ends.json"
    older = {name: value for name, value in json.loads(ends.read_text()).items() if name != "topic_id"}
    ends.write_text(json.dumps(older))
    job.restart()
    job.bundle([row(2)])
    job.flush()
    assert topic_id_in(accounts, "clicks") == "the-second", "a release that knew no ids has left it open"


def test_an_account_of_a_block_has_every_record_of_it() -> None:
    orders = [
        build.order("o-1", at=T0 - HOUR),
        b"junk",
        build.order("o-2", at=T0),
        build.order("o-3", at=T0 - 2 * HOUR),
    ]
    headers: Any = {0: [(ATTEMPTS_HEADER, b"1")]}
    times = [T0, T0, T0 + DAY_MS, T0 + DAY_MS]
    block = build.block(orders, watermarks_ms=T0, first_offset=7, times_ms=times, partition=2, headers=headers)
    decoder = BlockDecoder(ORDERS_TABLE.kind, "archiver", build.fetch, KEEP_MS, lands_replays=True)
    day = T0 // DAY_MS
    assert account_of(decoder.decode(block)) == (2, Read([(7, 9, day), (9, 11, day + 1)], [7], [8], [10], 0))


# Late records that replay sent back


def test_what_replay_sent_back_too_late_is_kept_apart_in_rows() -> None:
    orders = [build.order("o-1", at=T0 - HOUR), build.order("o-2", at=T0)]
    headers: Any = {i: [(ATTEMPTS_HEADER, b"1")] for i in range(2)}
    block = build.block(orders, watermarks_ms=T0, first_offset=7, partition=2, headers=headers)
    decoded = BlockDecoder(ORDERS_TABLE.kind, "archiver", build.fetch, KEEP_MS, lands_replays=True).decode(block)
    found = ArchiveRows(ORDERS_TABLE)(decoded, 32)
    assert {key: [row[:3] for row in rows] for key, rows in found.items()} == {
        2: [(8, T0, "CREATED o-2")],
        -3: [(7, T0 - HOUR, "CREATED o-1")],
    }


def test_what_replay_sent_back_too_late_gets_files_of_its_own_and_counts_once(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.bundle([row(0), row(1)])
    day = 24 * HOUR
    job.bundle([row(2, "old", T0 - day), row(3, "old", T0 - day), row(5, "older", T0 - day - HOUR)], number=-4)
    assert len(job.expiry.at) == 1, "the watermark has passed them, and says nothing of their repeats"
    job.bundle([row(4), row(6, "old", T0 - day)], number=-4, commit=False)  # and again, as the bundle failed
    job.bundle([row(4, "x", T0 - day), row(6, "old", T0 - day)], number=-4)
    job.flush()
    job.flush(number=-4)
    assert archive(tmp_path) == {
        "day=2026-09-20/hour=13/clicks-00003-00000000000000000000.late.avro": ["older"],
        "day=2026-09-20/hour=14/clicks-00003-00000000000000000000.late.avro": ["old", "x"],
        "day=2026-09-21/hour=14/clicks-00003-00000000000000000000.avro": ["c-0", "c-1"],
    }
    assert job.counts == Counts(7, 5, duplicates=2)


def test_ids_of_what_replay_sent_back_too_late_are_known_within_a_range_of_offsets(tmp_path: Path) -> None:
    """So state is bounded, and what is a repeat does not depend on when a timer fires."""
    job = Job(tmp_path, per_file=10)
    job.bundle([row(2, "old"), row(9, "old")], number=-4)
    job.restart()
    job.bundle([row(11, "old"), row(12, "old")], number=-4)
    assert job.counts == Counts(3, 1, duplicates=2), "that of the open range is counted when it is written"
    job.flush(number=-4)
    assert job.counts == Counts(4, 2, duplicates=2)
    assert list(archive(tmp_path).values()) == [["old"], ["old"]]


# Files


@pytest.mark.parametrize("backwards", [False, True])
def test_of_repeats_among_files_the_first_is_kept_in_whatever_order_they_are_read(
    backwards: bool, tmp_path: Path
) -> None:
    batches = [
        (5, [row(0), row(1), row(2, "c-1")]),
        (5, [row(11), row(12, "c-0")]),
        (9, [row(0), row(1, "x"), row(2, "y", T0 + HOUR)]),
        (9, [row(10, "x"), row(11, "c-11")]),
    ]
    write = ArchiveFolder(str(tmp_path), ClickstreamEvent, CLICKSTREAM.id_of).write
    with TestPipeline(runner=FnApiRunner()) as p:
        rows = p | beam.Create([(key, encode_rows(rows)) for key, rows in batches[:: -1 if backwards else 1]])
        rows.element_type = beam.typehints.Tuple[int, bytes]
        data, counts = rows | ArchiveFiles(Store(write, True, 10, None, KEEP_MS), shards=3)
        assert_that(counts | SumCounts(None), equal_to([Counts(10, 5, duplicates=5)]), "counts")
        ids = data | Records(CLICKSTREAM) | beam.Map(lambda click: click.event_id)
        assert_that(ids, equal_to(["c-0", "c-1", "c-11", "x", "y"]), "records")
    hour, later = "day=2026-09-21/hour=14", "day=2026-09-21/hour=15"
    assert archive(tmp_path) == {
        f"{hour}/file-0000000000000005-00000000000000000000.avro": ["c-0", "c-1"],
        f"{hour}/file-0000000000000005-00000000000000000010.avro": ["c-11"],
        f"{hour}/file-0000000000000009-00000000000000000000.avro": ["x"],
        f"{later}/file-0000000000000009-00000000000000000000.avro": ["y"],
    }
