"""`python -m simulator`: flags, connections, Ctrl-C, exit status."""

from __future__ import annotations

import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from schemas.logs import Logs
from schemas.stopping import Stop
from simulator.config import Config
from simulator.flags import Flags, parse
from simulator.run import NotAheadOfTheClock, Pace, Progress, Steady, run
from simulator.sinks import AvroFiles, JsonlFiles, KafkaSink, Sink, SinkError, schema_ids
from simulator.truth import Truth

_LOG = logging.getLogger("simulator")


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parse(sys.argv[1:] if arguments is None else arguments, round(time.time() * 1000))
    Logs(flags.log_format, "simulator", "%(message)s").set_up(logging.INFO)
    in_json = flags.log_format == "json"
    with ExitStack() as opened:
        try:
            truth_file = opened.enter_context(flags.truth.open("w", encoding="utf-8")) if flags.truth else None
        except OSError as e:
            _LOG.error(f"simulator: --truth: cannot write {flags.truth}: {e.strerror}")
            return 2
        try:
            sink = _open(flags)
        except SinkError as e:
            _LOG.error(f"simulator: {e}")
            return 2 if flags.folder else 1
        config = dataclasses.replace(flags.config, partitions=sink.partitions)
        _LOG.info(_greeting(config, flags))
        truth = Truth(config, truth_file)
        progress = Progress(truth, sink, log=_LOG.info if in_json else None)
        try:
            with _stopped_by_signals() as stop:
                run(config, sink, truth, progress, _pace(flags), stop)
        except (SinkError, OSError) as e:  # OSError: the disk is full
            _LOG.error(f"{'' if in_json else chr(10)}simulator: stopped after {truth.sent:,} events: {e}")
            return 1
        print(progress.summary())
    return 1 if sink.failed else 0


def _open(flags: Flags) -> Sink:
    topics = flags.config.topics
    if flags.servers:
        KafkaSink.check(flags.servers)
        return KafkaSink(flags.servers, topics, schema_ids(flags.registry), linger_ms=5 if flags.rate else 50)
    assert flags.folder is not None
    return JsonlFiles(flags.folder, topics) if flags.format == "jsonl" else AvroFiles(flags.folder, topics)


def _pace(flags: Flags) -> Pace | None:
    if flags.rate:
        return Steady(flags.rate)
    return NotAheadOfTheClock() if flags.servers else None


def _greeting(config: Config, flags: Flags) -> str:
    start = datetime.fromtimestamp(config.start_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"simulator: to {flags.output}, seed {config.seed}, event time from {start}; Ctrl-C ends it"


@contextmanager
def _stopped_by_signals() -> Iterator[Stop]:
    """Set by the first Ctrl-C or SIGTERM; a second one ends it the hard way."""
    stop = Stop()
    before: dict[int, Any] = {}

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for handled, handler in before.items():
            signal.signal(handled, handler)


if __name__ == "__main__":
    sys.exit(main())
