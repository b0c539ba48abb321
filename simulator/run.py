"""Sends events at their pace and reports progress."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import IO, Final, Protocol

from schemas.stopping import Stop
from simulator.arrival import arrivals
from simulator.config import Config, Event
from simulator.sinks import Sink
from simulator.ticks import Ticks
from simulator.truth import Truth

__all__ = ["NotAheadOfTheClock", "Pace", "Progress", "Steady", "run"]

_LONGEST_NAP_S: Final = 0.2
# Shorter waits are not worth a system call: the events of two milliseconds go out together.
_SHORTEST_NAP_S: Final = 0.002
_SHOWN_EVERY_S: Final = {True: 0.5, False: 5.0}  # on a terminal; in a log
_FIRST_SHOWN_S: Final = 1.0
_FLUSH_S: Final = 30.0
_FLUSH_STOPPED_S: Final = 5.0


class Pace(Protocol):
    """When an event may be sent."""

    def due_s(self, number: int, event: Event) -> float:
        """The clock's time, in seconds since 1970, of the event of that number (from 0)."""


class Steady:
    """So many events per second, from now on."""

    def __init__(self, rate: float):
        self._rate = rate
        self._started = time.time()

    def due_s(self, number: int, event: Event) -> float:  # noqa: ARG002
        return self._started + number / self._rate


class NotAheadOfTheClock:
    """At once, unless the event lies in the future: Kafka refuses those."""

    def due_s(self, number: int, event: Event) -> float:  # noqa: ARG002
        return event.timestamp_ms / 1000


class Progress:
    """A line with rate and counts: in place on a terminal, else one every few seconds, into the log if there is one."""

    def __init__(self, truth: Truth, sink: Sink, out: IO[str] = sys.stderr, log: Callable[[str], object] | None = None):
        self._truth = truth
        self._sink = sink
        self._out, self._log = out, log
        self._in_place = log is None and out.isatty()
        self._every = _SHOWN_EVERY_S[self._in_place]
        self._started = self._counted = time.monotonic()
        self._due = self._started + min(self._every, _FIRST_SHOWN_S)
        self._sent_then = 0

    def show_if_due(self) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        rate = (self._truth.sent - self._sent_then) / (now - self._counted)
        self._counted, self._sent_then = now, self._truth.sent
        self._due = now + self._every
        line = self._line(rate)
        if self._log is not None:
            self._log(line)
        else:
            self._out.write(
                f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K" if self._in_place else f"{line}\n"
            )
            self._out.flush()
        self._truth.flush()

    def _line(self, rate: float) -> str:
        truth = self._truth
        parts = [f"{truth.sent:,} sent", f"{rate:,.0f}/s"]
        parts += [f"{topic.partition('.')[0]} {counts.total():,}" for topic, counts in truth.kinds.items()]
        parts.append(f"{truth.rules.total():,} fraud, {truth.total('bad'):,} bad, {truth.total('late'):,} late")
        parts.append(f"{truth.total('duplicate'):,} duplicates")
        if self._sink.failed:
            parts.append(f"{self._sink.failed:,} NOT DELIVERED")
        return " · ".join(parts)

    def summary(self) -> str:
        """What was sent, as a table."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        truth = self._truth
        if self._in_place:
            self._out.write("\r\x1b[K")
        lines = [f"{truth.sent:,} events in {seconds:,.1f} s, {truth.sent / seconds:,.0f}/s"]
        lines.append(f"{'':22}{'sent':>12}{'good':>12}{'bad':>10}{'late':>10}{'duplicates':>12}")
        for topic, counts in truth.topics().items():
            lines.append("  {:20}{sent:12,}{good:12,}{bad:10,}{late:10,}{duplicates:12,}".format(topic, **counts))
        if truth.rules:
            lines.append("  planted fraud: " + ", ".join(f"{rule} {n:,}" for rule, n in sorted(truth.rules.items())))
        if self._sink.failed:
            lines.append(f"  NOT DELIVERED: {self._sink.failed:,}")
        return "\n".join(lines)


def run(config: Config, sink: Sink, truth: Truth, progress: Progress, pace: Pace | None, stop: Stop) -> None:
    """Sends everything, until the end or until `stop` is set; then what was held back, and the rest of the truth.

    Args:
      pace: None: no event waits.
    """
    try:
        _send_all(config, sink, truth, progress, pace, stop)
    finally:
        sink.close(_FLUSH_S if not stop.is_set() else _FLUSH_STOPPED_S)
        truth.close(sink.failed)


def _send_all(config: Config, sink: Sink, truth: Truth, progress: Progress, pace: Pace | None, stop: Stop) -> None:
    ticks = Ticks(config)
    now = 0.0
    for event in arrivals(config, sink.wire, ticks):
        if pace:
            due = pace.due_s(truth.sent, event)
            while due > now and due > (now := time.time()) and not stop.is_set():
                sink.poll()
                progress.show_if_due()
                stop.wait(min(max(due - now, _SHORTEST_NAP_S), _LONGEST_NAP_S))
        truth.saw(event, sink.send(event))
        if not truth.sent & 0xFF:
            sink.poll()
            progress.show_if_due()
        if stop.is_set():
            ticks.stop()
