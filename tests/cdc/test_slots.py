from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc.errors import CdcError
from cdc.slots import Slot, exposition, serve, table
from stack.ports import pick_free

MB = 2**20
WELL = Slot("streamforge", "shop", active=True, wal_status="reserved", lag_bytes=3, retained_bytes=5)


@pytest.mark.parametrize(
    ("slot", "trouble"),
    [
        (WELL, ""),
        (WELL._replace(lag_bytes=MB), ""),
        (WELL._replace(lag_bytes=MB + 1), "behind by more than 1.0 MB"),
        (WELL._replace(active=False, retained_bytes=2 * MB), "nobody reads it, and it retains 2.0 MB of WAL"),
        (WELL._replace(active=False, wal_status="lost"), "lost: drop it and take a new snapshot"),
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
        (sample.name, sample.labels.get("slot")): (sample.value, sample.labels.get("database"))
        for family in text_string_to_metric_families(exposition([WELL, odd], {}))
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


def test_prometheus_reads_which_tables_tell_the_whole_old_row() -> None:
    found = {
        sample.labels["table"]: sample.value
        for family in text_string_to_metric_families(exposition([], {"orders": True, "products": False}))
        for sample in family.samples
    }
    assert found == {"orders": 1, "products": 0}


def test_each_scrape_asks_the_database_and_fails_when_that_does() -> None:
    answers: list[Slot | CdcError] = [WELL, CdcError("the database starts up"), WELL._replace(lag_bytes=9)]

    def tell() -> str:
        answer = answers.pop(0)
        if isinstance(answer, CdcError):
            raise answer
        return exposition([answer], {})

    port = pick_free()
    threading.Thread(target=serve, args=("127.0.0.1", port, tell), daemon=True).start()
    assert 'lag_bytes{slot="streamforge",database="shop"} 3' in scraped(port, "/metrics")
    with pytest.raises(urllib.error.HTTPError) as failed:
        scraped(port, "/metrics")
    with failed.value as answer:
        assert (answer.code, answer.read()) == (503, b"the database starts up\n")
    with pytest.raises(urllib.error.HTTPError) as unknown:
        scraped(port, "/")
    with unknown.value as answer:
        assert answer.code == 404
    assert 'lag_bytes{slot="streamforge",database="shop"} 9' in scraped(port, "/metrics")


def scraped(port: int, path: str) -> str:
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError:
            raise
        except OSError:  # it does not listen yet
            assert time.monotonic() < deadline
