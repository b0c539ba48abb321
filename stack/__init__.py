"""The real local services (broker, registry, key-value store, Flink, database, Connect) as plain processes.

python -m stack up | status | logs | down | fetch

with Stack(folder, ['kafka', 'valkey'], ports='free') as stack:
    stack.address('kafka')
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.errors import StackError

if TYPE_CHECKING:
    from stack.stack import Stack

__all__ = ["Stack", "StackError"]


def __getattr__(name: str) -> object:
    """`Stack` on demand: it imports clients, and `stack.java` is asked before anything is installed."""
    if name == "Stack":
        from stack.stack import Stack

        return Stack
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
