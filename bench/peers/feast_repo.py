"""Feast's feature repository for the benchmark: as many features per user as ours. Runs in Feast's own environment.

python feast_repo.py FOLDER REDIS(host:port,db=n) ROWS.jsonl   # writes the repository, and the rows to the online store
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

_FIELDS = {
    "last_seen": String,
    "orders_1h": Int64,
    "spend_1h": Float64,
    "orders_24h": Int64,
    "spend_24h": Float64,
    "last_order_at": String,
    "last_session": String,
    "alerts": Int64,
    "last_alert_type": String,
    "last_alert_at": String,
}
_SETTINGS = """
project: bench
registry: {folder}/registry.db
provider: local
online_store: {{type: redis, connection_string: "{redis}"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""


def main(folder: Path, redis: str, rows: Path) -> None:
    (folder / "feature_store.yaml").write_text(_SETTINGS.format(folder=folder, redis=redis))
    users = pd.read_json(rows, lines=True, convert_dates=False)
    users["event_timestamp"] = datetime.datetime.now(datetime.UTC)
    history = folder / "users.parquet"
    users.to_parquet(history)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name="user_features",
        entities=[user],
        ttl=datetime.timedelta(days=7),
        schema=[Field(name="user_id", dtype=String), *(Field(name=n, dtype=t) for n, t in _FIELDS.items())],
        source=FileSource(path=str(history), timestamp_field="event_timestamp"),
    )
    store = FeatureStore(repo_path=str(folder))
    store.apply([user, view])
    store.write_to_online_store("user_features", users)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
