"""The archive's files: Avro object container files, local or `gs://`, written atomically."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from apache_beam.io.filesystems import FileSystems

from schemas import codec
from schemas.container import Container
from schemas.events import avro_schema
from transforms.domain.archive import Contents, avro_long
from transforms.io.files import lines, make_folder, write_whole

__all__ = ["AccountFolder", "ArchiveFolder", "container", "record_in"]

_LINES = 1_000


def container(record: type, blocks: list[bytes], name: str) -> bytes:
    """A container file of the record's schema; the same bytes for the same blocks and name."""
    sync = hashlib.sha256(name.encode()).digest()[:16]
    meta = {"avro.codec": "deflate", "avro.schema": codec.canonical(avro_schema(record.__name__))}
    pairs = b"".join(_string(text) for pair in meta.items() for text in pair)
    header = b"Obj\x01" + avro_long(len(meta)) + pairs + avro_long(0)
    return b"".join([header, sync, *(part for block in blocks for part in (block, sync))])


def _string(text: str) -> bytes:
    encoded = text.encode()
    return avro_long(len(encoded)) + encoded


def record_in(path: str, ids: dict[str, str]) -> str | None:
    """The name of the record that a file holds; None when it holds none that can be told.

    Args:
      ids: field → the record that has it, for files of JSON lines.
    """
    with FileSystems.open(path, mime_type="application/octet-stream") as stream:
        if path.endswith(".avro"):
            try:
                schema = Container(stream).writer.schema
            except codec.Undecodable:
                return None
            return str(schema["name"]).rpartition(".")[2] if isinstance(schema, dict) and "name" in schema else None
        for line in itertools.islice(lines(stream), _LINES):
            try:
                fields = msgspec.json.decode(line.data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            found = [record for field, record in ids.items() if isinstance(fields, dict) and field in fields]
            if found:
                return found[0]
    return None


class ArchiveFolder:
    """The folder of a table.

    Args:
      id_of: what a record is known by.
    """

    def __init__(self, folder: str, record: type, id_of: Callable[[Any], str]):
        self._folder, self._record, self._id_of = folder, record, id_of
        self._schema = codec.parse_schema(avro_schema(record.__name__))

    def write(self, path: str, contents: Contents, whole: bool) -> None:
        """Writes a file, in place of one of that name; if the contents are not whole, keeps the records that it has.

        Raises:
          CodecError: the file that is there is no archive of this table.
          OSError: it cannot be written; nothing has changed then.
        """
        name = FileSystems.join(self._folder, *path.split("/"))
        if not whole and FileSystems.exists(name):
            merged = self._merged(name, contents)
            if merged is None:
                return
            contents = merged
        make_folder(FileSystems.split(name)[0])
        write_whole(name, container(self._record, contents.blocks(), path))

    def _merged(self, name: str, contents: Contents) -> Contents | None:
        """What the file has and, behind it, what it lacks; None when it lacks nothing. Slow, and seldom needed."""
        merged, known = Contents(), set()
        with FileSystems.open(name, mime_type="application/octet-stream") as stream:
            for id_, datum in self._records(stream):
                merged.add([datum])
                known.add(id_)
        there = len(known)
        for id_, datum in self._records(io.BytesIO(container(self._record, contents.blocks(), name))):
            if id_ not in known:
                merged.add([datum])
                known.add(id_)
        return merged if len(known) > there else None

    def _records(self, stream: Any) -> Iterator[tuple[str, bytes]]:
        file = Container(stream)
        writer = file.writer.schema
        for datum, broken in file:
            if broken:
                raise codec.Undecodable(broken)
            record = codec.decode_valid(datum, writer, self._schema, self._record)
            # The file may be older than the newest version of the schema.
            yield self._id_of(record), datum if writer == self._schema else codec.encode_datum(record, self._schema)


class AccountFolder:
    """Of a table: what became of each offset of its topics, beside the archive's files."""

    def __init__(self, folder: str):
        self._folder = folder

    def write(self, name: str, text: bytes) -> None:
        """Raises: OSError: it cannot be written; nothing has changed then."""
        make_folder(self._folder)
        write_whole(FileSystems.join(self._folder, name), text)

    def read(self, name: str) -> bytes | None:
        path = FileSystems.join(self._folder, name)
        if not FileSystems.exists(path):
            return None
        with FileSystems.open(path, mime_type="application/octet-stream") as stream:
            return bytes(stream.read())
