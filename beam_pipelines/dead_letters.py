"""Dead letters: inspect, replay, export for repair, or discard them.

    python -m beam_pipelines.dead_letters inspect --show=5
    python -m beam_pipelines.dead_letters inspect alerts --error_class=UnknownSchema --json
    python -m beam_pipelines.dead_letters replay kafka://host:9092/dlq.fraud-detector --dry_run
    python -m beam_pipelines.dead_letters export kafka://host:9092/dlq.fraud-detector --to=broken
    python -m beam_pipelines.dead_letters discard alerts --error_class=NotFramed --yes

A letter is open until it is replayed or discarded; `transforms.io.dead_letters` describes how that is recorded. The
topics late.<job> hold the same envelopes and work with the same commands.

What replay guarantees:

- A letter returns to its topic and partition with its original bytes, key, headers and timestamp, plus the header
  `streamforge-attempts`, from which a job that rejects it again continues counting. A letter with 5 attempts stays. If
  the topic would not keep its timestamp, it gets the current time, and the header `streamforge-timestamp` has the
  original.
- For a record too large for a letter, the original is fetched from its topic. If the topic no longer has it, the letter
  stays and the reason says so.
- Each letter is sent once. Letters are identified by topic, partition, offset and attempts, so neither a copy written
  by a restarted job nor a second replay sends one again. Letters that arrive during a replay wait for the next one, so
  a record that is rejected again does not loop.
- A letter is marked as done once its batch (500 letters; with `--rate`, those of a second) is in Kafka. Ctrl-C and
  SIGTERM wait for that. A crash or lost connection in between makes the next replay resend that batch, and nothing
  else. Jobs count repeats of good records once: they recognise an order by order_id and status, a click by event_id,
  within the allowed lateness. Beyond it the archive accepts a record of any age, and other jobs report it as late by
  replay. No reader sees it twice.
- This holds for one replay at a time of a topic or folder, for as long as the broker keeps the group's offsets
  (offsets.retention.minutes, by default 7 days after the last replay or discard; a warning is printed if letters are
  kept longer). The same letters in two places, such as a topic and its export, count as two sets.

Long, as four commands share what they open, count and print.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec

from beam_pipelines import letter_flags
from beam_pipelines.letter_flags import BATCH, Filters
from beam_pipelines.letter_plan import Plan, whole
from beam_pipelines.letter_text import Newest, Payloads, Summary, as_json, as_text
from beam_pipelines.sinks import Folder, KafkaUrl
from schemas.flags import UsageError
from transforms.io.dead_letters import (
    FolderLetters,
    Identities,
    KafkaLetters,
    Letter,
    Letters,
    LettersExport,
    TooScatteredError,
)
from transforms.io.letters_avro import AvroExport
from transforms.io.originals import Gone, Originals
from transforms.io.resend import RecordSender, Undelivered, Unreachable

__all__ = ["main"]

_PROGRESS_S = 5.0


class Tally:
    """How many letters there are, and of which kind."""

    def __init__(self) -> None:
        self.open = self.done = self.copies = self.filtered_out = self.unreadable = 0

    def as_dict(self) -> dict[str, int]:
        return dict(vars(self))

    def __str__(self) -> str:
        rest = [f"{n:,} {name.replace('_', ' ')}" for name, n in vars(self).items() if n and name != "open"]
        return f"{self.open:,} open" + (f" ({', '.join(rest)})" if rest else "")


def chosen(letters: Letters, filters: Filters, tally: Tally, doing: str, all_letters: bool = False) -> Iterator[Letter]:
    """The open letters that the filters let through, each once. `doing`: what is said of it meanwhile, if anything."""
    seen = Identities()
    progress = _Progress(doing, letters.size)
    for letter, done in letters.read():
        if doing:
            progress.step()
        if not seen.add(letter.identity):
            tally.copies += 1
        elif not filters.match(letter.record):
            tally.filtered_out += 1
        else:
            tally.done += done
            tally.open += not done
            tally.unreadable += letter.record is None
            if all_letters or not done:
                yield letter


class _Progress:
    def __init__(self, doing: str, size: int | None):
        self._doing, self._size = doing, size
        self._count, self._next = 0, time.monotonic() + _PROGRESS_S

    def step(self, letters: int = 1) -> None:
        self._count += letters
        if (letters > 1 or self._count % 100 == 0) and time.monotonic() > self._next:
            self._next += _PROGRESS_S
            of = f" of {self._size:,}" if self._size is not None else ""
            _tell(f"{self._doing}: {self._count:,}{of} letters")


def inspect(letters: Letters, filters: Filters, flags: argparse.Namespace) -> int:
    tally, rows, newest = Tally(), Summary(), Newest(flags.show)
    for letter in chosen(letters, filters, tally, "reading", flags.all):
        rows.add(letter.record)
        newest.add(letter)
    payloads = Payloads(flags.registry, _tell)
    if flags.json:
        _print_json({"kind": "summary", "source": _name(flags.source), **tally.as_dict(), "groups": rows.as_dicts()})
        for letter in newest.letters():
            _print_json(
                {"kind": "letter", "part": letter.part, "position": letter.position} | as_json(letter, payloads)
            )
        return 0
    _print(f"{_name(flags.source)}: {tally}")
    if rows.count:
        _print(rows.table())
    for letter in newest.letters():
        _print("\n" + as_text(letter, payloads))
    return 0


def replay(letters: Letters, filters: Filters, flags: argparse.Namespace) -> int:
    sender = RecordSender(flags.to.servers if flags.to else _servers(flags))
    servers = sender.servers
    if flags.to and not sender.partitions(flags.to.topic):
        raise UsageError("--to", f"the broker at {servers} has no topic {flags.to.topic}")
    tally, plan = Tally(), Plan(flags.to, sender, Originals(_servers(flags)), flags.max)
    places = [(at.part, at.position) for at in chosen(letters, filters, tally, "reading") if plan.add(at)]
    letters.require_memory_for(places)
    _warn_of_short_memory(letters)
    sent: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    if not flags.dry_run:
        with stopping() as stop:
            try:
                # Of several partitions, letters come in another order the second time.
                these = (each for each in chosen(letters, filters, Tally(), "") if plan.has(each))
                _send_all(letters, these, plan, sender, flags.rate, stop, sent, refused)
            finally:
                _report_replay(flags, tally, sent, plan, refused)
        if stop:
            raise KeyboardInterrupt
        return 1 if refused else 0
    _report_replay(flags, tally, plan.sends, plan, refused)
    return 0


@contextmanager
def stopping() -> Iterator[list[int]]:
    """A list that gets the first signal to stop, so that the batch under way is sent and remembered. A second one ends
    at once."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def stop(number: int, _frame: object) -> None:
        asked.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():
        before |= {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _send_all(
    letters: Letters,
    these: Iterator[Letter],
    plan: Plan,
    sender: RecordSender,
    rate: int | None,
    stop: Sequence[int],
    sent: Counter[str],
    refused: Counter[str],
) -> None:
    batch: list[Letter] = []
    begin, size = time.monotonic(), min(BATCH, rate or BATCH)
    progress = _Progress("replayed", plan.sends.total())

    def send() -> None:
        if rate:
            time.sleep(max(0.0, begin + sum(sent.values()) / rate - time.monotonic()))
        lost: Undelivered | None = None
        try:
            errors = sender.send([plan.record(letter) for letter in batch])
        except Undelivered as e:
            lost, errors = e, [None if there else "" for there in e.sent]
        there = [letter for letter, error in zip(batch, errors, strict=True) if error is None]
        letters.mark(there, "replayed")
        sent.update(plan.topic(letter) for letter in there)
        refused.update(error for error in errors if error)
        progress.step(len(batch))
        batch.clear()
        if lost:
            raise lost

    for letter in these:
        if stop:
            break
        if plan.why_not(letter) is None:
            batch.append(letter)
            if len(batch) == size:
                send()
                if stop:
                    return
    send()


def _report_replay(
    flags: argparse.Namespace, tally: Tally, sent: Counter[str], plan: Plan, refused: Counter[str]
) -> None:
    skips = plan.skips
    if flags.json:
        counts = {"sent": dict(sent), "skipped": dict(skips), "refused": dict(refused), "beyond_max": plan.beyond_max}
        _print_json(
            {"kind": "replay", "source": _name(flags.source), "dry_run": flags.dry_run, **tally.as_dict(), **counts}
        )
        return
    _print(f"{_name(flags.source)}: {tally}")
    for topic, n in sorted(sent.items()):
        _print(f"{'would replay' if flags.dry_run else 'replayed'} {n:,} to {topic}")
    if not sent:
        _print("nothing to replay" if flags.dry_run else "replayed nothing")
    if plan.beyond_max:
        _print(f"left {plan.beyond_max:,} for the next time, by --max={flags.max}")
    for reason, n in sorted(skips.items()):
        _print(f"skipped {n:,} that {reason}")
    for reason, n in sorted(refused.items()):
        _print(f"not sent, {n:,} that the broker refuses: {reason}")


def _warn_of_short_memory(letters: Letters) -> None:
    if isinstance(letters, KafkaLetters) and (why := letters.forgets_too_soon()):
        _tell(f"warning: {why}")


def export(letters: Letters, filters: Filters, flags: argparse.Namespace) -> int:
    payloads = Payloads(flags.registry, _tell)
    tally, originals, heads = Tally(), Originals(_servers(flags)), 0
    try:
        out = (AvroExport if flags.avro else LettersExport)(flags.to.path)
    except OSError as e:
        raise UsageError("--to", e) from e
    with out:
        for letter in chosen(letters, filters, tally, "exporting"):
            if letter.record is not None:
                try:
                    record, cut = whole(letter, originals), {}
                except Gone as e:
                    record, cut, heads = letter.record, {"cut": letter.cut, "why_cut": f"the record {e}"}, heads + 1
                out.write(record, {"decoded": payloads.fields(record.payload), **cut})
    written = tally.open - tally.unreadable
    if flags.json:
        found = {"to": flags.to.path, "written": written, "heads": heads}
        _print_json({"kind": "export", "source": _name(flags.source), **found})
    else:
        _print(f"{_name(flags.source)}: {tally}")
        beside = "with their payloads" if flags.avro else "their payloads beside it as files"
        _print(f"wrote {written:,} envelopes to {out.envelopes}, {beside}")
        if heads:
            _print(f"of {heads:,} only the head: the record was too large for a letter, and is no longer in its topic")
    return 0


def discard(letters: Letters, filters: Filters, flags: argparse.Namespace) -> int:
    tally = Tally()
    places = [(at.part, at.position) for at in chosen(letters, filters, tally, "reading")]
    if not flags.yes and places:
        raise UsageError(
            "--yes", f"is needed to discard {len(places):,} letters of {_name(flags.source)}; nothing was done"
        )
    letters.require_memory_for(places)
    _warn_of_short_memory(letters)
    batch: list[Letter] = []
    for letter in chosen(letters, filters, Tally(), "discarding"):
        batch.append(letter)
        if len(batch) == 10 * BATCH:
            letters.mark(batch, "discarded")
            batch = []
    letters.mark(batch, "discarded")
    if flags.json:
        _print_json({"kind": "discard", "source": _name(flags.source), "discarded": len(places)})
    else:
        _print(f"{_name(flags.source)}: discarded {len(places):,} letters; they stay where they are, and count as done")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    try:
        flags, filters = letter_flags.parse(argv)
        letters = _open(flags.source)
        try:
            return _COMMANDS[flags.command](letters, filters, flags)
        finally:
            letters.close()
    except UsageError as e:
        _tell(str(e))
        return 2
    except (Unreachable, TooScatteredError) as e:
        _tell(str(e))
        return 1
    except KeyboardInterrupt:
        _tell("interrupted; letters already replayed or discarded stay done")
        return 130
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as e:
        _tell(f"{_name(flags.source)}: {e}")
        return 1


def _open(source: KafkaUrl | Folder) -> Letters:
    try:
        return (
            KafkaLetters(source.servers, source.topic) if isinstance(source, KafkaUrl) else FolderLetters(source.path)
        )
    except LookupError as e:
        raise UsageError("SOURCE", e.args[0]) from e


def _servers(flags: argparse.Namespace) -> str:
    """The broker that has the records' topics."""
    return flags.source.servers if isinstance(flags.source, KafkaUrl) else cast(str, flags.kafka)


_COMMANDS = {"inspect": inspect, "replay": replay, "export": export, "discard": discard}


def _name(source: KafkaUrl | Folder) -> str:
    return f"kafka://{source.servers}/{source.topic}" if isinstance(source, KafkaUrl) else source.path


def _print(text: str) -> None:
    print(text)  # noqa: T201


def _print_json(value: dict[str, Any]) -> None:
    _print(msgspec.json.encode(value).decode())


def _tell(text: str) -> None:
    print(f"dead_letters: {text}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
