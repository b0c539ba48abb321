from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc.slots import Slot, exposition, table

MB = 2**20
WELL = Slot("streamforge", "shop", active=True, wal_status="reserved", lag_bytes=3, retained_bytes=5)


@pytest.mark.parametrize(
    ("slot", "trouble"),
    [
        (WELL, ""),
        (WELL._replace(lag_bytes=MB), ""),
        (WELL._replace(lag_bytes=MB + 1), "behind by more than 1.0 MB"),
        (WELL._replace(active=False, retained_bytes=2 * MB), "nobody reads it, and it keeps 2.0 MB of WAL"),
        (WELL._replace(active=False, wal_status="lost"), "lost: drop it, and take a new snapshot"),
    ],
)
def test_an_operator_is_told_of_each_trouble(slot: Slot, trouble: str) -> None:
    assert slot.trouble(MB) == trouble
    assert (trouble or "well") in table([slot], MB)


def test_no_slot_is_said_too() -> None:
    assert table([], MB) == "no replication slots"


def test_prometheus_reads_the_metrics() -> None:
    odd = Slot("other", 'a"b\\c', active=False, wal_status="lost", lag_bytes=9, retained_bytes=0)
    found = {
        (sample.name, sample.labels["slot"]): (sample.value, sample.labels["database"])
        for family in text_string_to_metric_families(exposition([WELL, odd]))
        for sample in family.samples
    }
    prefix = "streamforge_replication_slot_"
    assert found == {
        (f"{prefix}lag_bytes", "streamforge"): (3, "shop"),
        (f"{prefix}lag_bytes", "other"): (9, 'a"b\\c'),
        (f"{prefix}retained_bytes", "streamforge"): (5, "shop"),
        (f"{prefix}retained_bytes", "other"): (0, 'a"b\\c'),
        (f"{prefix}active", "streamforge"): (1, "shop"),
        (f"{prefix}active", "other"): (0, 'a"b\\c'),
        (f"{prefix}lost", "streamforge"): (0, "shop"),
        (f"{prefix}lost", "other"): (1, 'a"b\\c'),
    }
