"""Logs in which a warning is one: Beam warns of its own doings, and reports every connection that ends as an error."""

from __future__ import annotations

import logging
import re
import threading

import grpc

__all__ = ["quieten"]

_NOISE = re.compile(
    "Unparseable argument|Really (starting|destroying)|Waiting for grpc|Failed to read inputs in the data plane"
)


def quieten() -> None:
    """Warnings and errors to stderr, without those that say nothing to whoever runs a job."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: not _NOISE.match(str(record.msg)))
    threading.excepthook = _report


def _report(args: threading.ExceptHookArgs) -> None:
    # Beam's threads die of a connection that was closed; what it was closed for is reported by whoever closed it.
    if not issubclass(args.exc_type, grpc.RpcError):
        threading.__excepthook__(args)
