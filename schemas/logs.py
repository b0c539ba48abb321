"""Log lines of every long-running command, as text or as JSON, to standard error."""

from __future__ import annotations

import argparse
import logging
from typing import Final, NamedTuple

import msgspec

from schemas.features import rfc3339

__all__ = ["FORMATS", "Logs", "add_log_format"]

FORMATS: Final = ("text", "json")


class _Line(msgspec.Struct, omit_defaults=True):
    time: str
    level: str
    logger: str
    message: str
    job: str = ""
    exception: str = ""


class _Json(logging.Formatter):
    def __init__(self, job: str):
        super().__init__()
        self._job, self._encode = job, msgspec.json.Encoder().encode

    def format(self, record: logging.LogRecord) -> str:
        exception = self.formatException(record.exc_info) if record.exc_info else ""
        line = _Line(
            rfc3339(int(record.created * 1000)),
            record.levelname,
            record.name,
            record.getMessage(),
            self._job,
            exception,
        )
        # What Python has for bytes that are no UTF-8, as of a file's name, JSON does not take.
        try:
            return self._encode(line).decode()
        except UnicodeEncodeError:
            line.message, line.exception = (t.encode(errors="replace").decode() for t in (line.message, exception))
            return self._encode(line).decode()


class Logs(NamedTuple):
    """How a process logs.

    Attributes:
      form: one of FORMATS. A line of JSON has time (RFC 3339), level, logger and message; job and exception if any.
      job: whose lines these are.
      text: how a line is put together that is not JSON.
    """

    form: str = "text"
    job: str = ""
    text: str = "%(asctime)s %(levelname)s %(name)s: %(message)s"

    def set_up(self, level: int) -> logging.Handler:
        """Replaces whatever was set up before. Returns the only handler."""
        handler = logging.StreamHandler()
        handler.setFormatter(_Json(self.job) if self.form == "json" else logging.Formatter(self.text))
        logging.basicConfig(level=level, handlers=[handler], force=True)
        return handler


def add_log_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log_format",
        choices=FORMATS,
        default="text",
        help="of log lines, on standard error (default: text)",
    )
