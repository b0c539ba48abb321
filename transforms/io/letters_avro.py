"""Dead letters as one Avro file, for programs that load or query them: BigQuery, Spark, DuckDB."""

from __future__ import annotations

from typing import Any, Self

import fastavro
import msgspec
from apache_beam.io.filesystems import FileSystems
from fastavro.write import Writer

from transforms.errors import BadRecord
from transforms.io.files import make_folder

__all__ = ["SCHEMA", "AvroExport"]

_MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
_HEADER = {
    "type": "record",
    "name": "Header",
    "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": ["null", "bytes"]}],
}
_CUT = {
    "type": "record",
    "name": "Cut",
    "fields": [{"name": "bytes", "type": "long"}, {"name": "sha256", "type": "string"}],
}
_TYPES: dict[str, Any] = {
    "payload": ["null", "bytes"],
    **dict.fromkeys(["job", "stage", "error_class", "error_message", "topic"], "string"),
    "partition": "long",
    "offset": "long",
    "timestamp": _MILLIS,
    "key": ["null", "bytes"],
    "headers": {"type": "array", "items": _HEADER},
    "schema_id": ["null", "long"],
    "attempts": "long",
    "seen_at": _MILLIS,
    "decoded": ["null", "string"],
    "cut": ["null", _CUT],
    "why_cut": ["null", "string"],
}
SCHEMA = {
    "type": "record",
    "name": "DeadLetter",
    "namespace": "com.streamforge.letters",
    "doc": "A record that a job could not use: its bytes, where it is from, and why. `decoded` is JSON.",
    "fields": [{"name": name, "type": type_} for name, type_ in _TYPES.items()],
}


class AvroExport:
    """Writes letters to a new folder, as `letters.avro`, which is there when all is written, and no sooner.

    Raises:
      OSError: the folder is not empty, or cannot be written.
    """

    def __init__(self, folder: str):
        if FileSystems.match([FileSystems.join(folder, "*")])[0].metadata_list:
            raise OSError(f"{folder} is not empty")
        self.envelopes = FileSystems.join(folder, "letters.avro")
        self._hidden = FileSystems.join(folder, ".letters.tmp")
        make_folder(folder)
        self._file = FileSystems.create(self._hidden, mime_type="application/octet-stream")
        self._writer = Writer(self._file, fastavro.parse_schema(SCHEMA), codec="deflate")

    def __enter__(self) -> Self:
        return self

    def write(self, record: BadRecord, more: dict[str, Any]) -> None:
        """Adds a letter; `more`: decoded, cut, why_cut."""
        fields = msgspec.structs.asdict(record) | more
        fields["headers"] = [{"name": name, "value": value} for name, value in record.headers]
        if fields.get("decoded") is not None:
            fields["decoded"] = msgspec.json.encode(fields["decoded"]).decode()
        fields["cut"] = msgspec.to_builtins(fields.get("cut"))
        self._writer.write(fields)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._writer.flush()
        self._file.close()
        if kind is None:
            FileSystems.rename([self._hidden], [self.envelopes])
        else:
            FileSystems.delete([self._hidden])
