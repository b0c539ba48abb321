"""Fraud detection: orders in, an alert within a second of the order that completes a pattern.

    transactions.orders ─▶ blocks ─▶ decode, validate ─▶ per user: rules ─▶ alerts ─▶ Redis, alerts.fraud, folder
                                          ├─▶ dead letters ─▶ dlq.fraud-detector
                                          └─▶ late         ─▶ late.fraud-detector

Every record ends in exactly one of good, dead letters, late, duplicates, and the ledger says how many in each. Effects
are exactly once as readers see them: offsets and state are in the runner's checkpoint, alerts have the same id however
often they are found, and every sink keeps one of each.

    python -m beam_pipelines.fraud --runner=FlinkRunner
    python -m beam_pipelines.fraud --runner=FlinkRunner --flink_master=host:8081 --environment_type=EXTERNAL \\
        --environment_config=localhost:50000
    python -m beam_pipelines.fraud --runner=DirectRunner --input='orders/*.jsonl' --output=alerts --ledger=ledger.json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam.io.filesystems import FileSystems

from beam_pipelines import connect, options, runners
from beam_pipelines.options import Job, UsageError
from schemas.events import FraudAlert
from transforms.blocks import Block
from transforms.decode import ORDERS
from transforms.domain.fraud_rules import RuleError, Rules, default_rules, parse_rules
from transforms.errors import BadRecord
from transforms.fraud import DetectFraud, FraudRows
from transforms.io.redis import WriteAlertsToRedis
from transforms.ledger import Counts
from transforms.sharded_rows import DecodeRows, Decoding

JOB = Job(
    name="fraud-detector",
    module="beam_pipelines.fraud",
    summary="Reads orders, alerts on those that complete a fraud pattern.",
    input_topic="transactions.orders",
    output_topic="alerts.fraud",
    tables=("fraud_alerts",),
)


@dataclass(frozen=True)
class Config:
    """What the pipeline computes, apart from where it reads and writes.

    Attributes:
      watermark_lead_ms: how far Beam's watermark runs ahead of the one that tells late records; state is kept that
        much longer.
      max_orders_per_user: bound of a user's state; a user beyond it loses the oldest orders.
    """

    decoding: Decoding
    rules: Rules = field(default_factory=default_rules)
    watermark_lead_ms: int = 0
    max_orders_per_user: int = 1_000

    def __post_init__(self) -> None:
        if self.max_orders_per_user < 1:
            raise ValueError("max_orders_per_user must be at least 1")


class Outputs(NamedTuple):
    alerts: beam.PCollection[FraudAlert]
    dead_letters: beam.PCollection[BadRecord]
    late: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


def build(blocks: beam.PCollection[Block], config: Config) -> Outputs:
    """The job without its ends: blocks of orders in, alerts and everything that is not an alert out."""
    orders = blocks | "Orders" >> DecodeRows(ORDERS, FraudRows(config.rules), config.decoding)
    alerts, repeats = orders.good | "Fraud" >> DetectFraud(
        config.rules, config.decoding.allowed_lateness_ms + config.watermark_lead_ms, config.max_orders_per_user
    )
    counts = (orders.counts, repeats) | "Counts" >> beam.Flatten()
    return Outputs(alerts, orders.bad, orders.late, counts)


def main(argv: Sequence[str] | None = None) -> None:
    try:
        flags, settings, rest = options.parse(JOB, sys.argv[1:] if argv is None else argv, _add_flags)
        config = Config(
            decoding=connect.decoding(settings),
            rules=_rules(flags.rules),
            watermark_lead_ms=settings.watermark_lead_ms,
        )
        read = connect.read_blocks(settings)
        connect.check(settings)
        pipeline_options = runners.pipeline_options(settings, rest)
    except UsageError as e:
        options.stop(e, JOB.module)
    with runners.running(pipeline_options) as p:
        outputs = build(p | "Read" >> read, config)
        connect.write_rows(
            outputs.alerts,
            settings,
            "fraud_alerts",
            alert_row,
            WriteAlertsToRedis,
            lambda topic: connect.AvroEncoder(settings.registry, topic, FraudAlert, _key_and_time),
        )
        connect.write_refused(outputs.dead_letters, outputs.late, settings)
        connect.write_ledger(outputs.counts, settings)


def _key_and_time(alert: FraudAlert) -> tuple[str, int]:
    return alert.user_id, alert.event_time


def alert_row(alert: FraudAlert) -> bytes:
    """A row of table fraud_alerts as JSON. An alert is never corrected, so its version is its event time."""
    return msgspec.json.encode({**msgspec.structs.asdict(alert), "version": alert.event_time})


def _add_flags(group: Any) -> None:
    group.add_argument(
        "--rules",
        help="YAML file with the fraud rules, local or gs:// "
        "(default: transforms/domain/fraud_rules.yaml, which explains the format)",
    )


def _rules(path: str | None) -> Rules:
    if path is None:
        return default_rules()
    try:
        with FileSystems.open(path) as file:
            return parse_rules(file.read().decode())
    except (OSError, UnicodeDecodeError, RuleError) as e:
        raise UsageError("--rules", f"{path}: {e}" if not isinstance(e, OSError) else e) from e


if __name__ == "__main__":
    from beam_pipelines.fraud import main  # classes of __main__ cannot be unpickled by workers

    main()
