"""The job as a Bytewax dataflow: its Kafka source, a stateful step per user, its SQLite recovery store.

Tuned as its documentation suggests and measurements confirmed: whole batches are decoded and filtered in one step
(`flat_map_batch`), so that only tuples of the needed fields are keyed; the state has a cheap snapshot of its own
(`stateful_flat_map` would deep-copy each user at each epoch); librdkafka does not back off.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax._bytewax import cli_main  # what `python -m bytewax.run` calls
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir

from bench.peers.detection import HIGH_VALUE_MINOR, HORIZON_MS, Order, UserOrders, decoder
from bench.peers.report import Report, arguments

_EPOCH = timedelta(seconds=5)  # as often as Flink's checkpoints in its peer
_HORIZON = timedelta(milliseconds=HORIZON_MS)

Snapshot = bytes


class _UserLogic(StatefulBatchLogic[Order, str, Snapshot]):
    """One user's orders. Forgotten when none came for a horizon or two, by the clock: there is no event timer for this.

    The timer is not moved at every order, which would cost 7 % of the whole run.
    """

    def __init__(self, hot: bool, snapshot: Snapshot | None):
        self._orders = UserOrders()
        self._add = self._orders.add if hot else self._orders.add_high
        self._touched = True
        self._look_at = datetime.now(UTC) + _HORIZON
        if snapshot is not None:
            orders = self._orders
            orders.created, orders.cancelled, orders.high, orders.newest = pickle.loads(snapshot)

    def on_batch(self, values: list[Order]) -> tuple[Iterable[str], bool]:
        self._touched = True
        return [f"{rule} {order_id}" for order in values for rule, order_id in self._add(order)], self.RETAIN

    def on_notify(self) -> tuple[Iterable[str], bool]:
        idle, self._touched = not self._touched, False
        self._look_at += _HORIZON
        return (), self.DISCARD if idle else self.RETAIN

    def notify_at(self) -> datetime:
        return self._look_at

    def snapshot(self) -> Snapshot:
        orders = self._orders
        return pickle.dumps((orders.created, orders.cancelled, orders.high, orders.newest))


class _AlertPartition(StatelessSinkPartition[tuple[str, str]]):
    def __init__(self, path: Path):
        self._file = path.open("a", encoding="utf-8")

    def write_batch(self, items: list[tuple[str, str]]) -> None:
        lines = []
        for user_id, alert in items:
            rule, _, order_id = alert.partition(" ")
            lines.append(f"{rule} {user_id} {order_id}\n")
        self._file.writelines(lines)

    def close(self) -> None:
        self._file.close()


class _AlertFile(DynamicSink[tuple[str, str]]):
    """Appends alerts to a file. Bytewax's own FileSink would fsync every batch."""

    def __init__(self, folder: Path):
        self._folder = folder

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _AlertPartition:  # noqa: ARG002
        return _AlertPartition(self._folder / f"alerts-{worker_index}.txt")


def _select(
    decode: Callable[[bytes], dict[str, Any]], hot: bool, report: Report
) -> Callable[[list[Any]], Iterable[Any]]:
    """A function from a batch of messages to the (user, order) pairs that rules look at."""

    def select(messages: list[KafkaSourceMessage[bytes, bytes]]) -> list[tuple[str, Order]]:
        report.reading()
        report.events += len(messages)
        selected = []
        for message in messages:
            record = decode(message.value)
            status, amount = record["order_status"], record["total_amount_minor"]
            if status == "CREATED":
                if not hot and amount <= HIGH_VALUE_MINOR:
                    continue
            elif not hot or status != "CANCELLED":
                continue
            order = Order(
                record["event_time"],
                record["order_id"],
                record["shipping_region"],
                status == "CANCELLED",
                amount,
                record["is_first_order"],
            )
            selected.append((record["user_id"], order))
        return selected

    return select


def build(kafka: str, registry: str, topic: str, workload: str, output: Path, batch: int, report: Report) -> Dataflow:
    """The dataflow; it ends at the end of the topic."""
    hot = workload == "hot"
    flow = Dataflow("fraud")
    source = KafkaSource([kafka], [topic], tail=False, batch_size=batch, add_config={"fetch.queue.backoff.ms": "5"})
    messages = op.input("read", flow, source)
    orders = op.flat_map_batch("select", messages, _select(decoder(registry), hot, report))
    alerts = op.stateful_batch("detect", orders, lambda snapshot: _UserLogic(hot, snapshot))
    op.output("write", alerts, _AlertFile(output))
    return flow


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--batch", type=int, default=2_000, help="records per poll (2000)")
    parser.add_argument("--no-recovery", action="store_true", help="without the recovery store")
    options = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recovery = None
        if not options.no_recovery:
            folder.joinpath("recovery").mkdir()
            init_db_dir(folder / "recovery", 1)  # type: ignore[no-untyped-call]
            recovery = RecoveryConfig(folder / "recovery")  # type: ignore[no-untyped-call]
        flow = build(options.kafka, options.registry, options.topic, options.workload, folder, options.batch, report)
        cli_main(flow, epoch_interval=_EPOCH, recovery_config=recovery)  # type: ignore[no-untyped-call]
        alerts = [line for file in folder.glob("alerts-*.txt") for line in file.read_text().splitlines()]
    report.finish(alerts, options.alerts)


if __name__ == "__main__":
    main()
