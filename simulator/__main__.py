"""`python -m simulator`: flags, connections, Ctrl-C, exit status."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from types import FrameType

from simulator.config import Config
from simulator.flags import Flags, parse
from simulator.run import Pace, Progress, run
from simulator.sinks import AvroFiles, JsonlFiles, KafkaSink, Sink, SinkError, schema_ids
from simulator.truth import Truth


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parse(sys.argv[1:] if arguments is None else arguments, round(time.time() * 1000))
    with ExitStack() as opened:
        try:
            truth_file = opened.enter_context(flags.truth.open("w", encoding="utf-8")) if flags.truth else None
        except OSError as e:
            print(f"simulator: --truth: cannot write {flags.truth}: {e.strerror}", file=sys.stderr)
            return 2
        try:
            sink = _open(flags)
        except SinkError as e:
            print(f"simulator: {e}", file=sys.stderr)
            return 2 if flags.folder else 1
        config = dataclasses.replace(flags.config, partitions=sink.partitions)
        print(_greeting(config, flags), file=sys.stderr)
        truth = Truth(config, truth_file)
        progress = Progress(truth, sink)
        run(config, sink, truth, progress, _pace(flags), _stopped_by_signals(), paced=flags.rate > 0)
        print(progress.summary())
    return 1 if sink.failed else 0


def _open(flags: Flags) -> Sink:
    topics = flags.config.topics
    if flags.servers:
        KafkaSink.check(flags.servers)
        return KafkaSink(flags.servers, topics, schema_ids(flags.registry), linger_ms=5 if flags.rate else 50)
    assert flags.folder is not None  # noqa: S101
    return JsonlFiles(flags.folder, topics) if flags.format == "jsonl" else AvroFiles(flags.folder, topics)


def _pace(flags: Flags) -> Pace | None:
    if flags.rate:
        return Pace(time.time() * 1000 - flags.config.start_ms)
    # At full speed only Kafka sets a limit: it refuses records from the future.
    return Pace(0) if flags.servers else None


def _greeting(config: Config, flags: Flags) -> str:
    start = datetime.fromtimestamp(config.start_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"simulator: to {flags.output}, seed {config.seed}, event time from {start}; Ctrl-C ends it"


def _stopped_by_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # a second one ends it the hard way

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


if __name__ == "__main__":
    sys.exit(main())
