"""Where dead letters are stored (a Kafka topic or folder), which of them are done, and how they return to their topic.

A letter is open until it is done: replayed or discarded. Nothing is ever taken out of the topic or the parts, so what
is done has to be remembered:

- of a topic, in the committed offsets of the group `streamforge-dead-letters-<topic>`: the offset is the first open
  letter, so that the group's lag shows the work left, and the commit's metadata says which letters after it are done;
- of a folder, in `done/*.jsonl` beside the parts: one line per letter, one file per batch, there whole or not at all.

A job that goes back to its checkpoint writes letters again. They are told by `Identity`: the copies of a letter count
once, and a copy of one that is done is done.

Long, as topic and folder are two forms of one memory.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

import msgspec
from apache_beam.io.filesystems import FileSystems
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from connections.kafka import Connection
from transforms.domain.done_offsets import DoneOffsets
from transforms.errors import BadRecord
from transforms.io.files import make_folder, write_whole
from transforms.io.kafka import KafkaTopic
from transforms.io.kafka.patience import patiently
from transforms.io.resend import CONNECT_S, Unreachable, as_ours
from transforms.letter_envelopes import Cut, cut_of, read_envelope

__all__ = [
    "PAYLOADS",
    "FolderLetters",
    "Identities",
    "Identity",
    "KafkaLetters",
    "Letter",
    "Letters",
    "LettersExport",
    "TooScatteredError",
]

_SILENCE_S = 30.0
_MUTE = logging.getLogger("streamforge.dead_letters.client")
_MUTE.addHandler(logging.NullHandler())
_MUTE.propagate = False
PAYLOADS = "payloads"


class TooScatteredError(Exception):
    """Done letters lie so among open ones that it cannot be remembered which are which."""


class Identity(NamedTuple):
    """One delivery of one record. A letter that cannot be read stands for itself: its place, partition −1."""

    topic: str
    partition: int
    offset: int
    attempts: int


class Identities:
    """A set of identities, small enough for millions: a number each."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[str, int, int], set[int]] = {}

    def add(self, identity: Identity) -> bool:
        """Whether it is new."""
        topic, partition, offset, attempts = identity
        offsets = self._offsets.setdefault((topic, partition, attempts), set())
        if offset in offsets:
            return False
        offsets.add(offset)
        return True

    def __contains__(self, identity: Identity) -> bool:
        topic, partition, offset, attempts = identity
        return offset in self._offsets.get((topic, partition, attempts), ())


class Letter(NamedTuple):
    """A dead letter where it lies.

    Attributes:
      part: partition of the topic, or path of the part.
      position: offset, or line number from 0.
      record: None when the envelope cannot be read.
      cut: what the envelope says of a payload of which it has the head alone.
    """

    part: int | str
    position: int
    envelope: bytes
    record: BadRecord | None
    cut: Cut | None = None

    @property
    def identity(self) -> Identity:
        if self.record is None:
            return Identity(str(self.part), -1, self.position, 0)
        return Identity(self.record.topic, self.record.partition, self.record.offset, self.record.attempts)


class Letters(Protocol):
    """Dead letters in one place, as they were when it was opened.

    Attributes:
      size: letters, copies and done ones included; None when only reading tells.
    """

    @property
    def size(self) -> int | None: ...

    def read(self) -> Iterator[tuple[Letter, bool]]:
        """Every letter and whether it is done; a part's letters in order."""

    def require_memory_for(self, letters: Sequence[tuple[int | str, int]]) -> None:
        """Raises: TooScatteredError when it could not be remembered that the letters at these places are done too."""

    def mark(self, letters: Sequence[Letter], how: str) -> None:
        """Remembers that letters are done. On return it is safe."""

    def close(self) -> None: ...


class KafkaLetters:
    """The letters in a topic.

    Raises:
      Unreachable.
      LookupError: the broker has no such topic, or something else committed to the group that remembers.
    """

    def __init__(self, servers: str, topic: str):
        self._servers, self._topic = servers, topic
        self._group = f"streamforge-dead-letters-{topic}"
        try:
            self._ends = patiently(lambda: KafkaTopic.look_up(servers, topic, CONNECT_S).ends)
        except KafkaException as e:
            raise as_ours(e, servers, topic) from e
        self._consumer = Consumer(
            {
                **Connection(servers).settings,
                "group.id": self._group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.queue.backoff.ms": 5,
                "log_level": 0,
            }
        )
        try:
            self._starts = {p: patiently(partial(self._low, p)) for p in self._ends}
            self._done = {
                at.partition: DoneOffsets.restore(
                    at.offset, at.metadata, self._starts[at.partition], self._ends[at.partition]
                )
                for at in patiently(self._committed)
            }
        except KafkaException as e:
            self._consumer.close()
            raise as_ours(e, servers, topic) from e
        except ValueError as e:
            self._consumer.close()
            raise LookupError(f"what the group {self._group} says is done cannot be read: {e}") from e
        self._finished: Identities | None = None

    def _committed(self) -> list[TopicPartition]:
        asked = [TopicPartition(self._topic, p) for p in self._ends]
        found: list[TopicPartition] = self._consumer.committed(asked, timeout=_SILENCE_S)
        for at in found:
            if at.error is not None:
                raise KafkaException(at.error)
        return found

    def _low(self, partition: int) -> int:
        return int(self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=CONNECT_S)[0])

    @property
    def size(self) -> int:
        return sum(self._ends[p] - self._starts[p] for p in self._ends)

    def read(self) -> Iterator[tuple[Letter, bool]]:
        if self._finished is None:
            self._finished = Identities()
            for letter in self._letters({p: min(self._done[p].highest, end) for p, end in self._ends.items()}):
                if letter.position in self._done[int(letter.part)]:
                    self._finished.add(letter.identity)
        for letter in self._letters(self._ends):
            done = self._done[int(letter.part)]
            if letter.identity in self._finished:
                done.add(letter.position)  # a copy that came after the first was done
            yield letter, letter.position in done

    def _letters(self, ends: dict[int, int]) -> Iterator[Letter]:
        for message in self._messages(ends):
            envelope = message.value() or b""
            yield Letter(message.partition(), message.offset(), envelope, *_parse(envelope))

    def _messages(self, ends: dict[int, int]) -> Iterator[Message]:
        left = {p for p, end in ends.items() if self._starts[p] < end}
        if not left:
            return
        self._consumer.assign([TopicPartition(self._topic, p, self._starts[p]) for p in left])
        silent_s = 0.0
        while left:
            asked_at = time.monotonic()
            messages = self._consumer.consume(1_000, 0.1)
            silent_s = 0.0 if messages else silent_s + time.monotonic() - asked_at
            if silent_s > _SILENCE_S:
                raise Unreachable(f"{self._servers} has not answered for {_SILENCE_S:.0f} s")
            for message in messages:
                error, partition = message.error(), message.partition()
                if error is None:
                    if message.offset() < ends[partition]:
                        yield message
                    if message.offset() + 1 >= ends[partition]:
                        left.discard(partition)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(partition)
                elif error.fatal() or not error.retriable():
                    raise Unreachable(f"{self._servers}: {error.str()}")
        self._consumer.unassign()

    def require_memory_for(self, letters: Sequence[tuple[int | str, int]]) -> None:
        would_be = {p: done.copy() for p, done in self._done.items()}
        for part, position in letters:
            would_be[int(part)].add(position)
        for partition, done in would_be.items():
            if done.metadata() is None:
                raise TooScatteredError(
                    f"the letters of partition {partition} that would stay open lie too scattered to be remembered; "
                    "use fewer filters, or discard what will not be replayed first"
                )

    def mark(self, letters: Sequence[Letter], how: str) -> None:  # noqa: ARG002 - a commit has no room for it
        for letter in letters:
            self._done[int(letter.part)].add(letter.position)
            if self._finished is not None:
                self._finished.add(letter.identity)
        commits = []
        for partition, done in self._done.items():
            metadata = done.metadata()
            if metadata is not None:  # only half-way: the next batches fill the gaps, as require_memory_for made sure
                commits.append(TopicPartition(self._topic, partition, done.first_open, metadata))
        try:
            patiently(partial(self._commit, commits))
        except KafkaException as e:
            raise Unreachable(f"{self._servers}: what was done could not be remembered: {e.args[0].str()}") from e

    def _commit(self, commits: list[TopicPartition]) -> None:
        for at in self._consumer.commit(offsets=commits, asynchronous=False) or []:
            if at.error is not None:
                raise KafkaException(at.error)

    def forgets_too_soon(self) -> str | None:
        """Why what is done may be forgotten while its letters are still there; None when it will not be."""
        admin = AdminClient(Connection(self._servers).settings, logger=_MUTE)
        try:
            broker = str(next(iter(admin.list_topics(timeout=CONNECT_S).brokers)))
            asked = [ConfigResource(ResourceType.BROKER, broker), ConfigResource(ResourceType.TOPIC, self._topic)]
            of_broker, of_topic = (f.result(CONNECT_S) for f in admin.describe_configs(asked).values())
            offsets_ms = int(of_broker["offsets.retention.minutes"].value) * 60_000
            letters_ms = int(of_topic["retention.ms"].value)
        except (KafkaException, TimeoutError, KeyError, TypeError):  # not allowed to ask, or not told
            return None
        if 0 <= letters_ms <= offsets_ms:
            return None
        keeps = "for ever" if letters_ms < 0 else f"{letters_ms / 86_400_000:g} days"
        return (
            f"{self._topic} keeps letters {keeps}, but the broker remembers what is done for "
            f"{offsets_ms / 86_400_000:g} days after the last replay or discard; set retention.ms or "
            "offsets.retention.minutes so that it remembers for longer"
        )

    def close(self) -> None:
        self._consumer.close()


class FolderLetters:
    """The letters in a folder: `dead_letters/*.jsonl` in it as jobs write them, else `*.jsonl` of its own.

    An envelope with a `file` has its payload in that file, as `export` writes it, so that the payload can be mended.

    Raises:
      LookupError: there is no such folder.
    """

    size = None

    def __init__(self, folder: str):
        try:
            self._open(folder)
        except (OSError, ValueError) as e:  # ValueError: a scheme that Beam was installed without
            raise LookupError(f"{folder} cannot be read: {e}") from e

    def _open(self, folder: str) -> None:
        self._folder = FileSystems.join(folder, "dead_letters")
        self._parts = _jsonl(self._folder)
        if not self._parts:
            if not FileSystems.exists(self._folder):
                self._folder = folder
            self._parts = _jsonl(self._folder)
            if not self._parts and not FileSystems.exists(folder):
                raise LookupError(f"there is no folder {folder}")
        self._finished = Identities()
        for path in _jsonl(FileSystems.join(self._folder, "done")):
            with FileSystems.open(path) as lines:
                for line in lines:
                    self._finished.add(_done_line(line).identity)

    def read(self) -> Iterator[tuple[Letter, bool]]:
        for path in self._parts:
            with FileSystems.open(path) as lines:
                for position, line in enumerate(lines):
                    envelope = line.rstrip(b"\r\n")
                    # Named without its folder, so that a folder can be moved with its memory.
                    letter = Letter(FileSystems.split(path)[1], position, envelope, *self._parse(envelope))
                    yield letter, letter.identity in self._finished

    def _parse(self, envelope: bytes) -> tuple[BadRecord | None, Cut | None]:
        record, cut = _parse(envelope)
        if record is None or b'"file"' not in envelope:
            return record, cut
        file = _exported(envelope).file
        if file is None or not re.fullmatch(rf"{PAYLOADS}/[\w.-]+", file, re.ASCII):
            return record, cut
        with FileSystems.open(FileSystems.join(self._folder, *file.split("/"))) as payload:
            return msgspec.structs.replace(record, payload=payload.read()), cut

    def require_memory_for(self, letters: Sequence[tuple[int | str, int]]) -> None:
        pass

    def mark(self, letters: Sequence[Letter], how: str) -> None:
        if not letters:
            return
        now_ms = time.time_ns() // 1_000_000
        lines = [msgspec.json.encode(_DoneLine(*letter.identity, how, now_ms)) for letter in letters]
        folder = FileSystems.join(self._folder, "done")
        make_folder(folder)
        write_whole(FileSystems.join(folder, f"part-{uuid.uuid4().hex}.jsonl"), b"\n".join(lines) + b"\n")
        for letter in letters:
            self._finished.add(letter.identity)

    def close(self) -> None:
        pass


class _DoneLine(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int
    attempts: int
    how: str
    at: int

    @property
    def identity(self) -> Identity:
        return Identity(self.topic, self.partition, self.offset, self.attempts)


class _Exported(msgspec.Struct):
    file: str | None = None


_done_line = msgspec.json.Decoder(_DoneLine).decode
_exported = msgspec.json.Decoder(_Exported).decode


def _jsonl(folder: str) -> list[str]:
    found = FileSystems.match([FileSystems.join(folder, "*.jsonl")])[0].metadata_list
    return sorted(m.path for m in found)


def _parse(envelope: bytes) -> tuple[BadRecord | None, Cut | None]:
    try:
        return read_envelope(envelope), cut_of(envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # ValidationError is a DecodeError
        return None, None


class LettersExport:
    """Writes letters to a new folder: `letters.jsonl` and the payloads as files, in a form that FolderLetters reads.

    `letters.jsonl` is there when all is written, and no sooner.

    Raises:
      OSError: the folder is not empty, or cannot be written.
    """

    def __init__(self, folder: str):
        if FileSystems.match([FileSystems.join(folder, "*")])[0].metadata_list:
            raise OSError(f"{folder} is not empty")
        self._folder = folder
        self.envelopes = FileSystems.join(folder, "letters.jsonl")
        self._hidden = FileSystems.join(folder, ".letters.tmp")
        self._count = 0
        make_folder(folder)
        make_folder(FileSystems.join(folder, PAYLOADS))
        self._lines = FileSystems.create(self._hidden, mime_type="application/octet-stream")

    def __enter__(self) -> Self:
        return self

    def write(self, record: BadRecord, more: dict[str, Any]) -> None:
        """Adds a letter; `more` are further fields of its envelope."""
        self._count += 1
        fields = msgspec.to_builtins(record) | more
        if record.payload is not None:
            # Numbered, as different paths may look the same once what no file name may have is taken out.
            origin = re.sub(r"[^\w.-]", "_", record.topic, flags=re.ASCII)[-100:]
            name = f"{self._count:06d}-{origin}-{record.partition}-{record.offset}-{record.attempts}"
            path = FileSystems.join(self._folder, PAYLOADS, name)
            with FileSystems.create(path, mime_type="application/octet-stream") as file:
                file.write(record.payload)
            fields["file"] = f"{PAYLOADS}/{name}"
        self._lines.write(msgspec.json.encode(fields) + b"\n")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._lines.close()
        if kind is None:
            FileSystems.rename([self._hidden], [self.envelopes])
