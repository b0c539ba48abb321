"""What the tests of the batch job share: a simulated shop of three days, a Spark to run the job on, and its tables."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
from pyiceberg.catalog.sql import SqlCatalog

from schemas.codec import from_fields
from schemas.events import ClickstreamEvent, OrderEvent, avro_schema
from stack.batch import catalog_settings
from stack.console import SILENT
from stack.spark import Spark
from tests.dags.driver import Driver, driving
from tests.live import ROOT
from transforms.domain.account import Accounts, read_of

DAYS = (date(2026, 11, 18), date(2026, 11, 19), date(2026, 11, 20))
EVENTS = int(os.environ.get("STREAMFORGE_BATCH_EVENTS", "20000"))
_SPAN_S = len(DAYS) * 86_400
TOPICS = {"orders": "transactions.orders", "clickstream": "clickstream.events"}
_KINDS = {"orders": OrderEvent, "clickstream": ClickstreamEvent}

Row = dict[str, Any]


class Shop:
    """Three days of a shop: its archive, and the rows of the streaming jobs, both made by the jobs themselves."""

    def __init__(self, folder: Path, events: int = EVENTS):
        self.archive, self.stream = folder / "archive", folder / "stream"
        refused = [f"--dead_letters={folder / 'refused'}", f"--late={folder / 'refused'}"]
        _python(
            *("simulator", "--rate=0", f"--events={events}", f"--event_rate={events / _SPAN_S}", "--seed=7"),
            *(f"--users={events // 75}", f"--start={DAYS[0]}T00:00:00Z", f"--output={folder / 'in'}"),
            *("--topics=transactions.orders,clickstream.events", "--currencies=TRY,EUR,JPY,KWD"),
        )
        direct = "--runner=DirectRunner"
        _python("beam_pipelines.archive", direct, f"--input={folder / 'in'}", f"--output={self.archive}", *refused)

        def stream(job: str, table: str) -> None:
            where = f"--input={self.archive / table / '**'}", f"--output={self.stream}"
            _python(f"beam_pipelines.{job}", direct, *where)

        self._account()
        self._age()
        with ThreadPoolExecutor() as jobs:  # each is a process, and starts slowly
            list(jobs.map(stream, ("fraud", "revenue", "sessions"), ("orders", "orders", "clickstream")))

    def _account(self) -> None:
        """The archive is made of files; they get the names and accounts of a topic, as if a topic had been read."""
        for table, topic in TOPICS.items():
            account, next_ = Accounts(1 << 40), 0
            for path in sorted((self.archive / table).rglob("*.avro")):
                with path.open("rb") as stream:
                    times = [round(fields["event_time"].timestamp() * 1000) for fields in fastavro.reader(stream)]
                offsets = np.arange(next_, next_ + len(times))
                next_ += len(times)
                account.add(
                    read_of(offsets, np.array(times), [], [], [], 0), list(zip(offsets, times, strict=True)), []
                )
                path.rename(path.with_name(f"{topic}-00000-{int(offsets[0]):020}.avro"))
            assert account.open is not None
            folder = self.archive / "accounts" / table
            folder.mkdir(parents=True)
            (folder / f"{topic}-00000-{0:020}.json").write_bytes(account.open.to_json(topic, 0))
            ends = {"topic": topic, "asked_at": time.time_ns() // 1_000_000, "ends": [[0, next_]]}
            (folder / f"{topic}.ends.json").write_text(json.dumps(ends))

    def _age(self) -> None:
        """Every other file of clicks is of an older version of the schema, which lacked two fields."""
        older = avro_schema("ClickstreamEvent")
        older["fields"] = [field for field in older["fields"] if field["name"] not in ("page_url", "referrer")]
        for path in sorted((self.archive / "clickstream").rglob("*.avro"))[::2]:
            with path.open("rb") as stream:
                records = list(fastavro.reader(stream))
            with path.open("wb") as stream:
                fastavro.writer(stream, older, records, codec="deflate")

    def records(self, table: str) -> list[Any]:
        """Every archived record, read without any of the code that is tested."""
        found = []
        for path in sorted((self.archive / table).rglob("*.avro")):
            with path.open("rb") as stream:
                for fields in fastavro.reader(stream):
                    at_ms = round(fields["event_time"].timestamp() * 1000)
                    found.append(from_fields({**fields, "event_time": at_ms}, _KINDS[table]))
        return found

    def stream_rows(self, table: str) -> list[Row]:
        return [json.loads(line) for path in (self.stream / table).glob("*.jsonl") for line in path.open()]


def _python(module: str, *flags: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


class Job:
    """The job in a Spark of two cores, and its tables as another program sees them."""

    def __init__(self, driver: Driver, folder: Path, shop: Shop):
        self._driver, self.report, self._shop = driver, folder / "report", shop
        self._warehouse = (folder / "warehouse").as_uri()
        self._catalog = folder / "catalog.db"
        self.flags = [
            *(f"--warehouse={self._warehouse}", *(f"--catalog_conf={s}" for s in catalog_settings(self._catalog))),
            *(f"--archive={shop.archive}", f"--report={self.report}", "--freshness=6h"),
        ]

    def run(self, day: date, *flags: str, stream: Path | None = None) -> tuple[int, str]:
        """Exit status, and what it said."""
        return self.run_with(*self.flags, f"--date={day}", f"--stream={stream or self._shop.stream}", *flags)

    def run_with(self, *flags: str) -> tuple[int, str]:
        answer = self._driver.ask({"argv": list(flags)})
        return answer["status"], answer["out"] + answer["err"]

    def sql(self, query: str) -> list[Row]:
        rows: list[Row] = self._driver.ask({"sql": query})["rows"]
        return rows

    @contextmanager
    def refusing_commits(self, table: str) -> Iterator[None]:
        """The catalogue takes no commit to the table: what a catalogue that is away does in the middle of a step."""
        change = (
            f"BEFORE UPDATE ON iceberg_tables WHEN NEW.table_name = '{table}' BEGIN SELECT RAISE(ABORT, 'away'); END"
        )
        with sqlite3.connect(self._catalog) as catalog:
            catalog.execute(f"CREATE TRIGGER refuse {change}")
        try:
            yield
        finally:
            with sqlite3.connect(self._catalog) as catalog:
                catalog.execute("DROP TRIGGER refuse")

    def rows(self, table: str, namespace: str = "analytics") -> list[Row]:
        """What readers have of a table, by PyIceberg; times in ms, in a fixed order."""
        rows = [
            {k: _plain(v) for k, v in row.items()} for row in self.table(table, namespace).scan().to_arrow().to_pylist()
        ]
        return sorted(rows, key=lambda row: json.dumps(row, default=str))

    def table(self, table: str, namespace: str = "analytics") -> Any:
        catalog = SqlCatalog("lake", uri=f"sqlite:///{self._catalog}", warehouse=self._warehouse)
        return catalog.load_table(f"{namespace}.{table}")

    def said(self, day: date, name: str) -> Any:
        """A gate's report."""
        return json.loads((self.report / str(day) / f"{name}.json").read_text())


def _plain(value: Any) -> Any:
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else value


@contextmanager
def started(folder: Path, shop: Shop) -> Iterator[Job]:
    spark = Spark(ROOT / ".stack" / "spark", SILENT)
    settings = {
        "spark.driver.memory": "1g",
        # Much is compiled here, and little of it runs for long.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "3",
        # A folder for each hour, with next to nothing in it: listing them takes no job.
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "1000",
        # Compiling a plan takes longer than passing so few rows through it. `make dag-test` runs it as production does.
        "spark.sql.codegen.wholeStage": "false",
        "spark.jars": ",".join(map(str, spark.jars)),
    }
    flags = [part for key, value in settings.items() for part in ("--conf", shlex.quote(f"{key}={value}"))]
    environment = {
        **os.environ,
        **spark.environment,
        "PYTHONPATH": str(ROOT),
        "PYSPARK_SUBMIT_ARGS": " ".join(["--master local[2]", *flags, "pyspark-shell"]),
    }
    command = [str(spark.python), str(ROOT / "tests" / "dags" / "spark_driver.py")]
    with driving(command, folder / "log", folder, environment) as driver:
        yield Job(driver, folder, shop)
