"""The project's topics and their partitions, created by `stack up`."""

__all__ = ["TOPICS"]

JOBS = ("fraud-detector", "session-aggregator", "revenue-calculator", "cdc-processor", "archiver")
DATA = (
    "clickstream.events",
    "transactions.orders",
    "inventory.events",
    "alerts.fraud",
    "analytics.sessions",
    "analytics.revenue",
)
PARTITIONS = 4

NAMES = (*DATA, *(f"dlq.{job}" for job in JOBS), *(f"late.{job}" for job in JOBS))

TOPICS: dict[str, int] = dict.fromkeys(NAMES, PARTITIONS)
