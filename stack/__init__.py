"""The real local services (broker, registry, key-value store, Flink, database, Connect) as plain processes.

python -m stack up | status | logs | down | fetch

with Stack(folder, ['kafka', 'valkey'], ports='free') as stack:
    stack.address('kafka')
"""

from stack.errors import StackError
from stack.stack import Stack

__all__ = ["Stack", "StackError"]
