"""The access log: a line of JSON per request, on standard output.

    {"time":"2026-11-22T10:00:00.123Z","request_id":"5f…","method":"GET","route":"/api/v1/features/<user_id>",
     "status":200,"duration_ms":0.214}

It logs the route by default; the path, which contains user ids, only on request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from schemas.features import rfc3339

__all__ = ["AccessLog"]

_STDOUT = 1


class _Line(msgspec.Struct, omit_defaults=True):
    time: str
    request_id: str
    method: str
    route: str
    status: int
    duration_ms: float
    path: str | None = None


def _print(line: bytes) -> None:
    os.write(_STDOUT, line)  # one call a line: those of several workers and threads do not mix


class AccessLog:
    """
    Args:
      with_path: log paths, and so user ids.
      write: takes a line at a time, from any thread.
    """

    def __init__(self, with_path: bool, write: Callable[[bytes], object] = _print):
        self._with_path = with_path
        self._write = write
        self._encode = msgspec.json.Encoder().encode

    def tell(self, request_id: str, method: str, route: str, path: str, status: int, seconds: float) -> None:
        now = rfc3339(time.time_ns() // 1_000_000)
        shown = path if self._with_path else None
        line = _Line(now, request_id, method, route, status, round(seconds * 1000, 3), shown)
        self._write(self._encode(line) + b"\n")
