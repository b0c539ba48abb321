"""Logs in which a warning is one: Beam warns of its own doings, and reports every connection that ends as an error."""

from __future__ import annotations

import logging
import re
import sys
import threading
from functools import partial

import grpc

from schemas.logs import Logs

__all__ = ["quieten"]

_LOG = logging.getLogger(__name__)
_NOISE = re.compile(
    "Unparseable argument|Really (starting|destroying)|Waiting for grpc|Failed to read inputs in the data plane"
)


def quieten(as_: Logs) -> None:
    """Warnings and errors to stderr, without those that say nothing to whoever runs a job."""
    as_.set_up(logging.WARNING).addFilter(lambda record: not _NOISE.match(str(record.msg)))
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # what it tries again is told by whoever asked, if at all
    threading.excepthook = partial(_report, as_)
    if as_.form == "json":
        sys.excepthook = lambda *error: _LOG.critical("ended by an error", exc_info=error)


def _report(as_: Logs, args: threading.ExceptHookArgs) -> None:
    # Beam's threads die of a connection that was closed; what it was closed for is reported by whoever closed it.
    if issubclass(args.exc_type, grpc.RpcError):
        return
    if as_.form == "json" and args.exc_value is not None:
        _LOG.error("a thread died", exc_info=args.exc_value)
    else:
        threading.__excepthook__(args)
