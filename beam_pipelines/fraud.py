"""Fraud detection: reads orders and alerts within a second of the order that completes a pattern.

    transactions.orders ─▶ blocks ─▶ decode, validate ─▶ per user: rules ─▶ alerts ─▶ Redis, alerts.fraud, folder
                                          ├─▶ dead letters ─▶ dlq.fraud-detector
                                          └─▶ late         ─▶ late.fraud-detector

Every record ends in exactly one of good, dead letters, late and duplicates, and the ledger counts each. Readers see
exactly-once results: offsets and state are in the runner's checkpoint, an alert found again has the same id, and every
sink keeps one of each.

    python -m beam_pipelines.fraud --runner=FlinkRunner
    python -m beam_pipelines.fraud --runner=FlinkRunner --flink_master=host:8081 --environment_type=EXTERNAL \\
        --environment_config=localhost:50000
    python -m beam_pipelines.fraud --runner=FlinkRunner --rules_topic=rules.fraud
    python -m beam_pipelines.fraud --runner=DirectRunner --input='orders/*.jsonl' --output=alerts --ledger=ledger.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from confluent_kafka import KafkaException

from beam_pipelines import connect
from beam_pipelines.options import Settings
from beam_pipelines.run import run
from beam_pipelines.sinks import KafkaUrl, Results
from connections.settings import SettingsError
from schemas.events import FraudAlert
from schemas.flags import UsageError
from schemas.jobs import JOBS
from transforms.blocks import Block
from transforms.decode import ORDERS
from transforms.domain.fraud_rules import RuleError, Rules, default_rules, parse_rules
from transforms.domain.rules_in_force import RulesInForce
from transforms.errors import BadRecord
from transforms.fraud import DetectFraud, FraudRows
from transforms.io.kafka.rules import RulesTopic, read_rules, why
from transforms.io.redis import WriteAlertsToRedis
from transforms.ledger import Counts
from transforms.live_rules import DetectFraudOverTime, FraudRowsOverTime, Histories
from transforms.sharded_rows import DecodeRows, Decoding

JOB = JOBS["fraud"]


@dataclass(frozen=True)
class Config:
    """What the pipeline computes, apart from where it reads and writes.

    Attributes:
      max_orders_per_user: bound of a user's state; beyond it the oldest orders are dropped.
      histories: where workers learn which version of the rules is in force when; `rules` hold before the first. None:
        they hold always.
    """

    decoding: Decoding
    rules: Rules = field(default_factory=default_rules)
    max_orders_per_user: int = 1_000
    histories: Histories | None = None

    def __post_init__(self) -> None:
        if self.max_orders_per_user < 1:
            raise ValueError("max_orders_per_user must be at least 1")


class Outputs(NamedTuple):
    alerts: beam.PCollection[FraudAlert]
    dead_letters: beam.PCollection[BadRecord]
    late: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


def build(blocks: beam.PCollection[Block], config: Config) -> Outputs:
    """The job without its source and sinks: orders in blocks → alerts, dead letters, late records and counts."""
    bounds = config.decoding.keep_ms, config.max_orders_per_user
    if config.histories is None:
        rows_of, detect = FraudRows(config.rules), DetectFraud(config.rules, *bounds)
    else:
        rows_of = FraudRowsOverTime(config.rules, config.histories)
        detect = DetectFraudOverTime(config.rules, config.histories, *bounds)
    orders = blocks | "Orders" >> DecodeRows(ORDERS, rows_of, config.decoding)
    alerts, repeats = orders.good | "Fraud" >> detect
    counts = (orders.counts, repeats) | "Counts" >> beam.Flatten()
    return Outputs(alerts, orders.bad, orders.late, counts)


def make_config(flags: argparse.Namespace, settings: Settings) -> Config:
    rules = _rules(flags.rules)
    return Config(connect.decoding(settings), rules, histories=_histories(flags, settings, rules))


def results(outputs: Outputs) -> list[Results]:
    return [Results(outputs.alerts, "fraud_alerts", WriteAlertsToRedis)]


def _rules(path: str | None) -> Rules:
    if path is None:
        return default_rules()
    try:
        with FileSystems.open(path) as file:
            return parse_rules(file.read().decode())
    except (OSError, UnicodeDecodeError, RuleError) as e:
        raise UsageError("--rules", f"{path}: {e}" if not isinstance(e, OSError) else e) from e


def _histories(flags: argparse.Namespace, settings: Settings, rules: Rules) -> Histories | None:
    """Raises: UsageError: there is no such topic, or this release cannot read what was activated."""
    text: str | None = flags.rules_topic
    if text is None:
        return None
    if "://" in text:
        topic = KafkaUrl.parse(text).connected(flags)
    elif isinstance(settings.input, KafkaUrl):
        topic = replace(settings.input, topic=text)
    else:
        raise UsageError("--rules_topic", "is kafka://host:port/topic when --input is files")
    try:
        RulesInForce(rules, read_rules(topic.servers, topic.topic))
    except (KafkaException, TimeoutError, RuleError) as e:
        raise UsageError("--rules_topic", f"topic {topic.topic} at {topic.servers}: {why(e)}") from e
    except SettingsError as e:
        raise UsageError("--kafka_config", e) from None
    return RulesTopic(topic.servers, topic.topic)


def main(argv: Sequence[str] | None = None) -> None:
    run(JOB, argv)


if __name__ == "__main__":
    main()
