"""Fraud: the job's declaration; its page is `beam_pipelines.fraud`."""

from __future__ import annotations

from typing import Final

from schemas.events import FraudAlert
from schemas.jobs.declaration import Flag, Job, Rows, State
from schemas.jobs.messages import FORMAT, MAPPING
from schemas.jobs.shop import ORDERS

JOB: Final = Job(
    module="fraud",
    name="fraud-detector",
    summary="Reads orders and alerts on those that complete a fraud pattern.",
    topics=(ORDERS,),
    tables=(
        Rows(
            "fraud_alerts",
            FraudAlert,
            key=("alert_id",),
            day="event_time",
            cluster_by=("user_id", "alert_type"),
            version="event_time",
            topic="alerts.fraud",
            topic_key=("user_id",),
            topic_time="event_time",
        ),
    ),
    reads="topic `transactions.orders`, or files",
    writes="alerts to Redis, topic `alerts.fraud`, BigQuery or a folder",
    flags=(
        FORMAT,
        MAPPING,
        Flag(
            "rules",
            "yaml_file",
            "YAML file with the fraud rules, local or gs:// "
            "(default: transforms/domain/fraud_rules.yaml, which explains the format)",
            asked="YAML file with the fraud rules, on gs://; by default, the rules in the image",
            note="The fraud rules, as YAML. Empty: those in the image (transforms/domain/fraud_rules.yaml, which "
            "explains the format).",
        ),
        Flag(
            "rules_topic",
            "rules_topic",
            "topic with versions of the rules and from when on each holds (python -m beam_pipelines.rules), on the "
            "input's broker, or kafka://host:port/topic; before the first, --rules holds (default: --rules always)",
            note="Topic with versions of the rules, such as rules.fraud, for rules that change while the job runs; "
            "before the first, `rules` holds (docs/rules.md). Empty: `rules` always.",
            asked="Topic with versions of the rules, on the input's broker or as kafka://host:port/topic, for rules "
            "that change while the job runs; before the first, the parameter rules holds",
        ),
    ),
    state=(
        State(
            "each user's orders that rules look at, at most the newest 1,000",
            "a late order may complete a pattern, or repeat another order",
            until="the longest span of these rules",
        ),
    ),
)
