"""What was planted, as JSON lines for whoever checks a pipeline's results.

    {"kind": "fraud", "rule", "user_id", "order_id", "event_time", "pattern"}   the order completes that rule
    {"kind": "near_miss", …}                          a whole pattern was sent and none of its orders completes a rule
    {"kind": "bad", "reason", "topic", "key", "timestamp", "sha256", "id"?}     sha256 of payload or line, if it has any
    {"kind": "late", "topic", "key", "order_id" | "event_id", "event_time", "behind_ms", "partition", "records_before"}
    {"kind": "duplicate", "topic", "key", "order_id" | "event_id"}
    {"kind": "summary", "seed", "run", "start", "failed", "topics": {topic: {"sent", "good", "bad", "late",
      "duplicates"}}}

The users of planted fraud are called `fraud-<run>-…`, those of late records `late-<run>-…`; nobody else is.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import IO, Any

from simulator.config import Config, Event, Kind

__all__ = ["Truth"]


class Truth:
    """Counts what was sent, and writes down what was planted.

    Args:
      out: None: count only.
    """

    def __init__(self, config: Config, out: IO[str] | None = None):
        self._config = config
        self._out = out
        self.sent = 0
        self.kinds: dict[str, Counter[Kind]] = {topic: Counter() for topic in config.topics}
        self.rules: Counter[str] = Counter()

    def saw(self, event: Event, payload: bytes | None) -> None:
        """Takes note of an event that was sent, with its bytes where it has any."""
        self.sent += 1
        self.kinds[event.topic][event.kind] += 1
        for fact in event.truth:
            line = fact
            if event.kind == "bad":
                line = fact | {"sha256": None if payload is None else hashlib.sha256(payload).hexdigest()}
            elif fact["kind"] == "fraud":
                self.rules[fact["rule"]] += 1
            self._write(line)

    def total(self, kind: Kind) -> int:
        return sum(counts[kind] for counts in self.kinds.values())

    def topics(self) -> dict[str, dict[str, int]]:
        return {
            topic: {
                "sent": counts.total(),
                "good": counts["good"],
                "bad": counts["bad"],
                "late": counts["late"],
                "duplicates": counts["duplicate"],
            }
            for topic, counts in self.kinds.items()
        }

    def flush(self) -> None:
        if self._out:
            self._out.flush()

    def close(self, failed: int) -> None:
        """Writes the last line."""
        config = self._config
        about = {"kind": "summary", "seed": config.seed, "run": config.run, "start": config.start_ms, "failed": failed}
        self._write(about | {"topics": self.topics()})
        self.flush()

    def _write(self, line: dict[str, Any]) -> None:
        if self._out:
            self._out.write(json.dumps(line, ensure_ascii=False) + "\n")
