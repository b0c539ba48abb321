"""Which messages of a partition are done, in a form that fits into a Kafka offset commit."""

from __future__ import annotations

import base64
import zlib

__all__ = ["METADATA_BYTES", "DoneOffsets"]

METADATA_BYTES = 4_096
"""Kafka's default of offset.metadata.max.bytes."""


class DoneOffsets:
    """The offsets of a partition that are done: all before `first_open`, and some after.

    As text (a commit's metadata): `v1:n:` and, in base 85, a compressed bitmap of the offsets from `first_open` − n on.
    Any pattern over some 25,000 offsets fits into what Kafka keeps, a regular one over millions.
    """

    def __init__(self, first_open: int, origin: int, bits: bytes | bytearray = b""):
        self.first_open, self._origin, self._bits = first_open, origin, bytearray(bits)
        self._move_on()

    @staticmethod
    def restore(committed: int, metadata: str | None, low: int, end: int) -> DoneOffsets:
        """Raises: ValueError: the metadata begin as ours do, and are not ours."""
        if committed < 0 or committed > end:  # never committed, or of a topic that was since made anew
            return DoneOffsets(low, low)
        first_open = max(committed, low)
        if not metadata or not metadata.startswith("v1:"):
            return DoneOffsets(first_open, first_open)
        try:
            _, before, packed = metadata.split(":", 2)
            if not 0 <= int(before) < 8:
                raise ValueError(before)
            bits = zlib.decompress(base64.b85decode(packed))
        except (ValueError, zlib.error) as e:
            raise ValueError(f"{metadata[:20]!r}… is not what was committed") from e
        return DoneOffsets(first_open, committed - int(before), bits)

    @property
    def highest(self) -> int:
        """No offset from here on is done."""
        return max(self.first_open, self._origin + 8 * len(self._bits))

    def copy(self) -> DoneOffsets:
        return DoneOffsets(self.first_open, self._origin, self._bits)

    def __contains__(self, offset: int) -> bool:
        byte, bit = divmod(offset - self._origin, 8)
        return offset < self.first_open or (byte < len(self._bits) and bool(self._bits[byte] >> bit & 1))

    def add(self, offset: int) -> None:
        if offset >= self.first_open:
            byte, bit = divmod(offset - self._origin, 8)
            self._bits.extend(bytes(max(0, byte + 1 - len(self._bits))))
            self._bits[byte] |= 1 << bit
            self._move_on()

    def _move_on(self) -> None:
        while self.first_open in self:
            self.first_open += 1

    def metadata(self) -> str | None:
        """None when it is longer than Kafka keeps."""
        first_byte, before = divmod(self.first_open - self._origin, 8)
        if first_byte >= len(self._bits):
            return ""
        packed = base64.b85encode(zlib.compress(self._bits[first_byte:], 9)).decode()
        text = f"v1:{before}:{packed}"
        return text if len(text) <= METADATA_BYTES else None
