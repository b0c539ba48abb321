"""A request's events, each judged, and placed in a topic or among the dead letters."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import Counter, Histogram

from connections.kafka import Brokers
from schemas import codec
from schemas.addresses import Address
from schemas.events import avro_schema
from schemas.jobs.shop import EVENTS_API, EVENTS_LETTERS
from serving.config import Config
from serving.ingest.deliveries import Deliveries, Failed, Outgoing, Placed, Unreachable
from serving.ingest.intake import KINDS, Encode, Intake, Refused, intakes
from serving.metrics import Metrics
from transforms.errors import SinkLetters
from transforms.io.registry import Registry
from transforms.letter_envelopes import cut_of, envelopes

__all__ = ["OUTCOMES", "Door", "Fate", "Unavailable"]

_LOG = logging.getLogger(__name__)

OUTCOMES: Final = ("accepted", "refused", "ignored", "unknown")
_OURS: Final = "own"
_LETTER_BYTES: Final = 990_000  # what a topic takes that nobody has configured, less what is around it
_ASK_AGAIN_S: Final = 2.0
_FIRST_S: Final = 2.0  # that the first requests wait for the registry
_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Unavailable(Exception):
    """Kafka or the registry does not answer; nothing was sent."""


class Fate(NamedTuple):
    """
    Attributes:
      outcome: of `OUTCOMES`.
      records: topic and place of each record that it became, if it was accepted.
      is_kept: of one that was refused: whether it is among the dead letters, whole.
      is_cut: of one that was refused: whether only its beginning is, as it is too long for that topic.
    """

    outcome: str
    records: Sequence[tuple[str, Placed]] = ()
    stage: str | None = None
    error_class: str | None = None
    error: str | None = None
    is_kept: bool = False
    is_cut: bool = False

    @property
    def is_final(self) -> bool:
        """Whether it need not be sent again."""
        return self.is_kept or self.is_cut if self.outcome == "refused" else self.outcome != "unknown"


class Door:
    """
    Attributes:
      mappings: by which events of others are read.
    """

    def __init__(self, config: Config, metrics: Metrics):
        assert config.events is not None
        self._intakes = intakes(config.mappings)
        servers = config.events.removeprefix("kafka://")
        self._deliveries = Deliveries(Brokers(servers, config.kafka_config), config.retry_after_s)
        self._schemas = _Schemas(Address(config.registry, config.registry_config))
        self._events = Counter(
            "streamforge_events",
            "Events sent to the API, by mapping and what became of them.",
            ("mapping", "outcome"),
            registry=metrics.registry,
        )
        self._produced = Counter(
            "streamforge_events_produced",
            "Records of events sent to the API that are in their topic.",
            ("topic",),
            registry=metrics.registry,
        )
        self._seconds = Histogram(
            "streamforge_event_delivery_seconds",
            "Time until Kafka confirmed, or did not, the records of a request.",
            buckets=_SECONDS,
            registry=metrics.registry,
        )
        for name in self._intakes:
            for outcome in OUTCOMES:  # from zero, so that the first is an increase
                self._events.labels(name or _OURS, outcome)
        for kind in KINDS.values():
            self._produced.labels(kind.topic)

    @property
    def mappings(self) -> list[str]:
        return [name for name in self._intakes if name is not None]

    def headers(self, mapping: str | None) -> Sequence[str]:
        """Those that the mapping looks at, in small letters."""
        return self._intakes[mapping].headers

    def take(self, mapping: str | None, route: str, events: Sequence[bytes], headers: Mapping[str, str]) -> list[Fate]:
        """What became of each, in order; within ten seconds, and most often at once.

        Raises: Unavailable: nothing was sent.
        """
        intake, now_ms = self._intakes[mapping], time.time_ns() // 1_000_000
        encode = self._schemas.encoder()
        judged = [_judge(intake, raw, headers, now_ms, encode) for raw in events]
        began = time.perf_counter()
        fates = self._place(judged)
        letters = SinkLetters(EVENTS_API, "", route)
        self._keep(
            fates, [_letter(letters, raw, fate, headers, now_ms) for raw, fate in zip(events, fates, strict=True)]
        )
        self._seconds.observe(time.perf_counter() - began)
        for fate in fates:
            self._events.labels(mapping or _OURS, fate.outcome).inc()
            for topic, _ in fate.records:
                self._produced.labels(topic).inc()
        return fates

    def _place(self, judged: Sequence[list[Outgoing] | Refused]) -> list[Fate]:
        """Raises: Unavailable."""
        good = [each for each in judged if not isinstance(each, Refused)]
        try:
            placed = iter(self._deliveries.send([record for records in good for record in records]))
        except Unreachable:
            raise Unavailable("Kafka does not answer") from None
        return [
            _refused(each) if isinstance(each, Refused) else _fate([(record.topic, next(placed)) for record in each])
            for each in judged
        ]

    def _keep(self, fates: list[Fate], letters: Sequence[Outgoing | None]) -> None:
        """Puts those that were refused among the dead letters."""
        numbers = [number for number, letter in enumerate(letters) if letter is not None]
        try:
            outcomes = self._deliveries.send([letter for letter in letters if letter is not None])
        except Unreachable:
            return
        for number, outcome in zip(numbers, outcomes, strict=True):
            letter = letters[number]
            if letter is not None and isinstance(outcome, Placed):
                is_cut = cut_of(letter.value) is not None  # there is no record that it could be fetched from
                fates[number] = fates[number]._replace(is_kept=not is_cut, is_cut=is_cut)


def _judge(
    intake: Intake, raw: bytes, headers: Mapping[str, str], now_ms: int, encode: Encode
) -> list[Outgoing] | Refused:
    try:
        return [
            # Stamped with when it happened, and never ahead of the clock: it moves no watermark past what others send.
            Outgoing(made.topic, made.key, made.value, min(made.event_time_ms, now_ms))
            for made in intake.read(raw, headers, now_ms, encode)
        ]
    except Refused as e:
        return e


def _refused(refusal: Refused) -> Fate:
    return Fate("refused", (), refusal.stage, refusal.error_class, str(refusal))


def _fate(outcomes: Sequence[tuple[str, Placed | Failed]]) -> Fate:
    failed = [(topic, outcome) for topic, outcome in outcomes if isinstance(outcome, Failed)]
    for topic, outcome in failed:
        if not outcome.of_the_record:
            return Fate("unknown", (), "produce", "Unconfirmed", f"{topic}: {outcome.error}")
    for topic, outcome in failed:
        return Fate("refused", (), "produce", "NotTaken", f"{topic}: {outcome.error}")
    records = [(topic, outcome) for topic, outcome in outcomes if isinstance(outcome, Placed)]
    return Fate("accepted" if records else "ignored", records)


def _letter(letters: SinkLetters, raw: bytes, fate: Fate, headers: Mapping[str, str], now_ms: int) -> Outgoing | None:
    """The same event always makes the same letter, so that one sent again counts once."""
    if fate.outcome != "refused":
        return None
    kept: list[tuple[str, bytes | None]] = [(name, value.encode()) for name, value in headers.items()]
    letter = letters._replace(stage=fate.stage or "").letter(
        raw, fate.error_class or "", fate.error or "", timestamp=now_ms, headers=kept
    )
    return Outgoing(EVENTS_LETTERS, None, next(envelopes(letter, _LETTER_BYTES)), now_ms)


class _Schemas:
    """The ids of our schemas, asked for beside the requests: none of them waits for a registry."""

    def __init__(self, registry: Address):
        self._registry = registry
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._since = 0.0
        self._ids: dict[str, int] = {}
        self._parsed = {kind.topic: codec.parse_schema(avro_schema(kind.record.__name__)) for kind in KINDS.values()}

    def encoder(self) -> Encode:
        """Raises: Unavailable."""
        with self._lock:
            if self._thread is None:
                self._since = time.monotonic()
                self._thread = threading.Thread(target=self._register, name="schemas", daemon=True)
                self._thread.start()
        ids = self._ids
        if not ids:
            self._thread.join(max(0.0, self._since + _FIRST_S - time.monotonic()))
            ids = self._ids
        if not ids:
            raise Unavailable("the schema registry does not answer")
        return lambda kind, record: codec.encode(record, ids[kind.topic], self._parsed[kind.topic])

    def _register(self) -> None:
        said = ""
        while not self._ids:
            try:
                registry = Registry(self._registry)
                self._ids = {
                    kind.topic: registry.register(f"{kind.topic}-value", avro_schema(kind.record.__name__))
                    for kind in KINDS.values()
                }
            except Exception as e:  # noqa: BLE001 - the client lets the errors of its HTTP library through
                if said != (said := f"{type(e).__name__} {self._registry.hide(e)}"[:200]):  # one line an outage
                    _LOG.warning("--registry: %s does not take our schemas: %s", self._registry, said)
                time.sleep(_ASK_AGAIN_S)
