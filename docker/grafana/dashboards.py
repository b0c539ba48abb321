"""Grafana's dashboards, which `make generate` writes.

Numbers of panels are fixed, as alerts link to them. A threshold that is drawn is that of the alert which watches it.

Long, as it is data: a panel is a few lines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

__all__ = ["FOLDER", "dashboards"]

FOLDER = Path(__file__).parents[2] / "helm/streamforge/files/dashboards"

_SOURCE = DataSourceRef("prometheus", "${datasource}")
_OF_PIPELINE = '{pipeline=~"$pipeline"}'
_OF_JOB = '{job_name=~"$pipeline"}'
_OF_API = 'endpoint=~"/api/v1/.*",endpoint!~"/api/v1/(health.*|stream)"'
_ROWS = 100  # their numbers begin here, above those of panels


class Line(NamedTuple):
    """What a panel draws."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """
    Attributes:
      number: in the dashboard; alerts link to it.
      limit: drawn as a line, of which the values above are bad.
      about: what a reader should know who has not built it.
    """

    number: int
    title: str
    unit: str
    lines: tuple[Line, ...]
    about: str
    limit: float | None = None
    width: int = 12
    single: bool = False
    stacked: bool = False


class Board(NamedTuple):
    uid: str
    title: str
    rows: dict[str, tuple[Panel, ...]]
    by_pipeline: bool = False


def _of_pipeline(metric: str, legend: str = "{{pipeline}}") -> Line:
    return Line(f"{metric}{_OF_PIPELINE}", legend)


def _quantile(share: str) -> Line:
    expression = (
        f"histogram_quantile({share}, sum by (le) (rate(streamforge_http_request_duration_seconds_bucket"
        f"{{{_OF_API}}}[$__rate_interval])))"
    )
    return Line(expression, f"p{float(share) * 100:g}")


PIPELINES = Board(
    "streamforge-pipelines",
    "StreamForge: pipelines",
    {
        "Jobs": (
            Panel(
                1,
                "Running since",
                "s",
                (_of_pipeline("pipeline:uptime_seconds"),),
                "How long each job has run without interruption. 0: waiting to restart.",
                width=8,
            ),
            Panel(
                2,
                "Restarts within 30 minutes",
                "none",
                (
                    Line(
                        f"pipeline:restarts{_OF_PIPELINE} - min_over_time(pipeline:restarts{_OF_PIPELINE}[30m])",
                        "{{pipeline}}",
                    ),
                ),
                "Each goes back to the last checkpoint; results do not change.",
                limit=3,
                width=8,
            ),
            Panel(
                3,
                "Alerts",
                "none",
                (
                    Line(
                        'count by (alertname) (ALERTS{alertname=~"StreamForge.*",alertstate="firing"})', "{{alertname}}"
                    ),
                ),
                "Alerts firing now, including the API's. Empty if there are none.",
                width=8,
            ),
        ),
        "Input": (
            Panel(
                4,
                "Records accounted for",
                "cps",
                (
                    Line(
                        '(pipeline:ledger_records{outcome="in",pipeline=~"$pipeline"}'
                        ' - min_over_time(pipeline:ledger_records{outcome="in",pipeline=~"$pipeline"}[5m])) / 300',
                        "{{pipeline}}",
                    ),
                ),
                "Records per second in the ledgers, over five minutes: records processed, not records read.",
                width=6,
            ),
            Panel(
                5,
                "Lag",
                "short",
                (_of_pipeline("pipeline:lag_records"),),
                "Records in its topics that a job has not read yet.",
                limit=100_000,
                width=6,
            ),
            Panel(
                6,
                "Watermark delay",
                "s",
                (_of_pipeline("pipeline:watermark_delay_seconds"),),
                "Now minus the smallest watermark. It also grows when no records are written.",
                limit=300,
                width=6,
            ),
            Panel(
                23,
                "Truncated partitions",
                "none",
                (Line(f"pipeline:truncated_partitions{_OF_PIPELINE}", "{{pipeline}} {{topic}}"),),
                "Partitions that end before the offset that the job committed.",
                limit=0.5,
                width=6,
            ),
        ),
        "Exactness": (
            Panel(
                7,
                "Dead letters, share of 30 minutes",
                "percentunit",
                (_of_pipeline("pipeline:dead_letters:share30m"),),
                "Rejected records. They are kept and can be replayed.",
                limit=0.01,
                width=6,
            ),
            Panel(
                8,
                "Late records, share of 30 minutes",
                "percentunit",
                (_of_pipeline("pipeline:late:share30m"),),
                "Records beyond the allowed lateness.",
                limit=0.05,
                width=6,
            ),
            Panel(
                9,
                "Ledger's age",
                "s",
                (_of_pipeline("pipeline:ledger_age_seconds"),),
                "Time since the ledger was last written. It also grows when no records are written to the topics.",
                limit=300,
                width=4,
            ),
            Panel(
                10,
                "Records not accounted for",
                "none",
                (_of_pipeline("pipeline:ledger_imbalance_records"),),
                "in - (good + dead letters + late + duplicates). It is 0.",
                limit=0.5,
                width=4,
                single=True,
            ),
            Panel(
                20,
                "Records lost",
                "none",
                (_of_pipeline("pipeline:lost_records"),),
                "Records deleted by Kafka before the job read them, since the job began. Not part of in.",
                limit=0.5,
                width=4,
                single=True,
            ),
        ),
        "Faults": (
            Panel(
                21,
                "Unexpected errors",
                "none",
                (_of_pipeline("pipeline:unexpected_errors"),),
                "Bugs, since the job last started. Each is a dead letter of class UnexpectedError.",
                limit=0.5,
            ),
            Panel(
                22,
                "Workers that died",
                "none",
                (_of_pipeline("pipeline:worker_deaths"),),
                "Python workers, since the job last started. The pool's log has signal and block.",
                limit=0.5,
            ),
        ),
        "Checkpoints": (
            Panel(
                11,
                "Age of the last checkpoint",
                "s",
                (_of_pipeline("pipeline:checkpoint_age_seconds"),),
                "What would be processed again after a failure; accurate to two minutes.",
                limit=600,
                width=8,
            ),
            Panel(
                12,
                "Duration",
                "s",
                (_of_pipeline("pipeline:checkpoint_duration_seconds"),),
                "Of the last checkpoint: waiting for running bundles, and writing.",
                limit=120,
                width=8,
            ),
            Panel(
                13,
                "Size",
                "bytes",
                (_of_pipeline("pipeline:checkpoint_size_bytes"),),
                "All state in the last checkpoint, including what an incremental one did not rewrite.",
                limit=5 * 1024**3,
                width=8,
            ),
        ),
        "Flink": (
            Panel(
                14,
                "Checkpoints within 30 minutes",
                "none",
                (
                    Line(
                        f"pipeline:checkpoints_completed{_OF_PIPELINE}"
                        f" - min_over_time(pipeline:checkpoints_completed{_OF_PIPELINE}[30m])",
                        "{{pipeline}} completed",
                    ),
                    Line(
                        f"pipeline:checkpoints_failed{_OF_PIPELINE}"
                        f" - min_over_time(pipeline:checkpoints_failed{_OF_PIPELINE}[30m])",
                        "{{pipeline}} failed",
                    ),
                ),
                "A few may fail while a job starts.",
                width=6,
            ),
            Panel(
                15,
                "Elements into operators",
                "cps",
                (
                    Line(
                        "sum by (job_name, operator_name) (rate("
                        f"flink_taskmanager_job_task_operator_numRecordsIn{_OF_JOB}[$__rate_interval]))",
                        "{{job_name}} {{operator_name}}",
                    ),
                ),
                "Elements, not records: a block of records is one.",
                width=6,
            ),
            Panel(
                16,
                "Back-pressure",
                "percentunit",
                (
                    Line(
                        "max by (job_name, task_name) ("
                        f"flink_taskmanager_job_task_backPressuredTimeMsPerSecond{_OF_JOB}) / 1000",
                        "{{job_name}} {{task_name}}",
                    ),
                ),
                "Share of time that a task waits for the next one. The first task that does not wait is the slow one.",
                width=6,
            ),
            Panel(
                17,
                "Heap of the task managers",
                "percentunit",
                (
                    Line(
                        "flink_taskmanager_Status_JVM_Memory_Heap_Used / flink_taskmanager_Status_JVM_Memory_Heap_Max",
                        "{{tm_id}}",
                    ),
                ),
                "With state on the heap, jobs fail when it is full.",
                limit=0.9,
                width=6,
            ),
        ),
        "Capture": (
            Panel(
                18,
                "Replication slots: not confirmed",
                "bytes",
                (Line("streamforge_replication_slot_lag_bytes", "{{slot}}"),),
                "WAL that the database has written and the slot's reader has not confirmed.",
                limit=1024**3,
            ),
            Panel(
                19,
                "Replication slots: WAL kept",
                "bytes",
                (Line("streamforge_replication_slot_retained_bytes", "{{slot}}"),),
                "When it fills the disk, the shop's database stops.",
                limit=10 * 1024**3,
            ),
        ),
    },
    by_pipeline=True,
)

API = Board(
    "streamforge-api",
    "StreamForge: API",
    {
        "Objectives": (
            Panel(
                1,
                "Answers without a server error, three days",
                "percentunit",
                (Line("1 - api:request_errors:ratio_rate3d", "available"),),
                "The objective is 99.9 % over 30 days.",
                width=6,
                single=True,
            ),
            Panel(
                2,
                "Error budget burn rate",
                "none",
                tuple(Line(f"api:request_errors:ratio_rate{w} / 0.001", w) for w in ("5m", "1h", "6h", "3d")),
                "At 1, the month's 0.1 % lasts exactly the month. An hour above the line raises a page.",
                limit=14.4,
                width=9,
            ),
            Panel(
                5,
                "Slow-answer budget burn rate",
                "none",
                tuple(Line(f"api:request_slow:ratio_rate{w} / 0.01", w) for w in ("5m", "1h", "6h", "3d")),
                "Slow: above 0.1 s. At 1, the month's 1 % lasts exactly the month.",
                limit=14.4,
                width=9,
            ),
        ),
        "Requests": (
            Panel(
                3,
                "Requests by route",
                "reqps",
                (Line("sum by (endpoint) (rate(streamforge_http_requests_total[$__rate_interval]))", "{{endpoint}}"),),
                "Including probes and scrapes.",
                width=8,
                stacked=True,
            ),
            Panel(
                4,
                "Response time",
                "s",
                (_quantile("0.5"), _quantile("0.99")),
                "API routes, without probes and streams.",
                limit=0.1,
                width=8,
            ),
            Panel(
                6,
                "Requests by status",
                "reqps",
                (Line("sum by (status) (rate(streamforge_http_requests_total[$__rate_interval]))", "{{status}}"),),
                "503: the online store does not answer. 429: a caller above its rate.",
                width=8,
                stacked=True,
            ),
        ),
        "Online store": (
            Panel(
                7,
                "Requests being answered",
                "none",
                (Line("sum by (instance) (streamforge_http_requests_in_flight)", "{{instance}}"),),
                "At most one per store connection; further requests wait.",
                width=6,
            ),
            Panel(
                8,
                "Reads that failed",
                "cps",
                (Line("sum by (instance) (rate(streamforge_redis_errors_total[$__rate_interval]))", "{{instance}}"),),
                "Each one is a 503 answer.",
                limit=0.1,
                width=6,
            ),
            Panel(
                9,
                "Connections to the store",
                "none",
                (Line("sum by (instance) (streamforge_redis_connections)", "{{instance}}"),),
                "Opened when needed, then kept.",
                width=6,
            ),
            Panel(
                10,
                "Alerts served",
                "cps",
                (Line("sum(rate(streamforge_fraud_alerts_served_total[$__rate_interval]))", "alerts"),),
                "Fraud alerts in answers.",
                width=6,
            ),
        ),
    },
)

BUSINESS = Board(
    "streamforge-business",
    "StreamForge: the shop",
    {
        "Now": (
            Panel(
                1,
                "Revenue of a minute",
                "short",
                (Line("max by (currency) (streamforge_revenue_minute_gmv)", "{{currency}}"),),
                "Per currency, of the newest minute that ended at least a minute ago. A gap: no orders, or no job is "
                "counting.",
            ),
            Panel(
                2,
                "Orders of a minute",
                "none",
                (
                    Line("sum(max by (currency) (streamforge_revenue_minute_orders))", "orders"),
                    Line("max by (currency) (streamforge_revenue_minute_users)", "users who ordered, {{currency}}"),
                ),
                "Of the same minute.",
            ),
        ),
        "Visitors and fraud": (
            Panel(
                5,
                "Sessions in progress",
                "none",
                (Line("max(streamforge_sessions_open)", "sessions"),),
                "A session ends 30 minutes after its last click.",
            ),
            Panel(
                4,
                "Fraud alerts of five minutes",
                "none",
                (Line("max by (alert_type) (streamforge_fraud_alerts_recent)", "{{alert_type}}"),),
                "By event time; at most 1,000 are counted.",
                stacked=True,
            ),
        ),
        "Freshness": (
            Panel(
                6,
                "Since the newest event",
                "s",
                (Line("family:freshness_seconds", "{{family}}"),),
                "The age of alerts is the time since the last fraud.",
                limit=900,
            ),
            Panel(
                8,
                "Since the newest published day began",
                "s",
                (Line("time() - max(streamforge_batch_published_day_seconds)", "published"),),
                "Daily batch. A day is published during the following night.",
                limit=60 * 3600,
            ),
            Panel(
                3,
                "Average order",
                "short",
                (
                    Line(
                        "max by (currency) (streamforge_revenue_minute_gmv)"
                        " / max by (currency) (streamforge_revenue_minute_orders)",
                        "{{currency}}",
                    ),
                ),
                "Of the minute above, in each currency.",
            ),
        ),
    },
)


def dashboards() -> dict[str, str]:
    """File name → JSON."""
    return {f"{board.uid.removeprefix('streamforge-')}.json": _json(board) for board in (PIPELINES, API, BUSINESS)}


def _json(board: Board) -> str:
    built = (
        grafana.Dashboard(board.title)
        .uid(board.uid)
        .tags(["streamforge"])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            grafana.DashboardLink("StreamForge")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["streamforge"])
            .as_dropdown(True)
            .keep_time(True)
        )
        .with_variable(grafana.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    if board.by_pipeline:
        built.with_variable(_pipeline_variable())
    for number, (row, panels) in enumerate(board.rows.items(), _ROWS):
        built.with_row(grafana.Row(row).id(number))
        for panel in panels:
            built.with_panel(_panel(panel))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _pipeline_variable() -> grafana.QueryVariable:
    return (
        grafana.QueryVariable("pipeline")
        .label("Job")
        .datasource(_SOURCE)
        .query({"query": "label_values(pipeline:ledger_records, pipeline)", "refId": "pipeline"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .hide(VariableHide.DONT_HIDE)
        .current(VariableOption(text="All", value="$__all", selected=True))
    )


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    made = _single(panel) if panel.single else _over_time(panel)
    made.id(panel.number).title(panel.title).description(panel.about).datasource(_SOURCE)
    made.unit(panel.unit).min(0).height(8).span(panel.width)
    for name, line in zip("ABCDEFGH", panel.lines, strict=False):
        query = prometheus.Dataquery().expr(line.expression).legend_format(line.legend).ref_id(name)
        made.with_target(query.instant() if panel.single else query.range())
    return made


def _single(panel: Panel) -> stat.Panel:
    made = stat.Panel().color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
    return made if panel.limit is None else made.thresholds(_thresholds(panel.limit))


def _over_time(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 5)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if panel.limit is not None:
        made.thresholds(_thresholds(panel.limit))
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED))
    return made


def _thresholds(limit: float) -> grafana.ThresholdsConfig:
    steps = [Threshold(value=None, color="green"), Threshold(value=limit, color="red")]
    return grafana.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
