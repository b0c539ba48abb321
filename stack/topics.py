"""The project's topics and their partitions, created by `stack up`."""

__all__ = ["TOPICS", "config"]

JOBS = ("fraud-detector", "session-aggregator", "revenue-calculator", "cdc-processor", "archiver")
DATA = (
    "clickstream.events",
    "transactions.orders",
    "inventory.events",
    "alerts.fraud",
    "alerts.stock",
    "analytics.sessions",
    "analytics.revenue",
)
CAPTURED = ("products", "customers", "orders", "order_items", "inventory_movements")
PARTITIONS = 4

NAMES = (
    *DATA,
    *(f"cdc.public.{table}" for table in CAPTURED),
    *(f"dlq.{job}" for job in JOBS),
    *(f"late.{job}" for job in JOBS),
)

TOPICS: dict[str, int] = dict.fromkeys(NAMES, PARTITIONS)


def config(name: str) -> dict[str, str]:
    """A topic's own settings. A dead letter holds its record in base64, so it must be allowed to be larger; a change
    holds a whole row twice, and is as large as cdc/connector.json lets it be."""
    if name.startswith("cdc."):
        return {"max.message.bytes": "16777216"}
    return {"max.message.bytes": "4194304"} if name.startswith(("dlq.", "late.")) else {}
