"""The DAG `daily_analytics`; its documentation for operators is below.

One file that needs only Airflow and its Google provider: the cluster fetches the job and its imports from the bucket.
Parsing it reads no variable, no connection and no file.

Long, as Airflow parses this file alone, and it imports nothing of ours then.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow.exceptions import AirflowException
from airflow.providers.google.cloud.hooks.dataproc import DataprocHook
from airflow.providers.google.cloud.hooks.gcs import GCSHook
from airflow.providers.google.cloud.operators.dataproc import (
    DataprocCreateClusterOperator,
    DataprocDeleteClusterOperator,
    DataprocSubmitJobOperator,
)
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, Variable, XComArg, task
from airflow.sdk.exceptions import AirflowFailException
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.dataproc_v1 import JobStatus

DOC = """
### A day recomputed, and published if stream and batch agree

Recomputes one day's revenue per minute, sessions and fraud alerts (UTC, by event time) from the archive, on a Dataproc
cluster that lives as long as the run. Compares them with the stream's results, checks their quality, and publishes them
as Iceberg tables if both gates pass.

    plan → create_cluster → compute → reconcile, quality → publish → catch_up → maintain → delete_cluster
    → cluster_is_gone

| task | what a failure means |
|---|---|
| `plan` | the variable or a parameter is wrong; the last line of its log says which. Nothing was started |
| `create_cluster` | no capacity, quota or permission; tried 3 times |
| `compute` | the archive has no data for the day, or Spark failed; tried 3 times |
| `reconcile`, `quality` | **the gate failed: no retry, nothing published.** The report says which rows |
| `publish` | a gate has not checked the staged data |
| `catch_up` | the day is published; an earlier day of the week, changed by replay since, is not published again |
| `maintain` | the day is published; its files were not compacted |
| `delete_cluster` | **the cluster may still cost money.** Tried 6 times; Dataproc deletes it after an idle hour |
| `cluster_is_gone` | the same; its only purpose is to fail the run |

The cluster is deleted whatever happens, and a run with a failed task is a failed run. The last lines of a failed step
are in its log here, so there is no need to look for the driver's output.

**Parameters.** `date`: the day, by default that of the run's data interval (the previous day). `backfill`: allows a
`date` more than 7 days ago, whose published data is then replaced. `max_differences`, `max_amount_minor`: override the
variable's values for this run. `accept`: names of known gaps to accept, such as `no_clicks`; `why`: the reason, which
goes into the report with the name of whoever triggered the run.

**Any day may be run again**, in any order: a day is replaced, never added to. One run at a time. To make up for missed
days: `airflow backfill create --dag-id daily_analytics --from-date FIRST --to-date DAY_AFTER_THE_LAST`; a day's data
interval starts at 03:00 of that day.

**Settings**: the Airflow variable `daily_analytics`, a JSON object described in `docs/airflow.md`. The steps wait in a
triggerer, not on a worker, so one must be running.
"""

GATE_FAILED = "daily_analytics: a gate failed: "
"""Marks a failed gate in the job's output, as Dataproc reports no exit status."""

_SPARK_SAYS = re.compile(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d (TRACE|DEBUG|INFO|WARN) ")
_VARIABLE = "daily_analytics"
_MAY_REDO_DAYS = 7
# As dags/spark/judged.py has them: this file imports nothing of ours.
_GAPS = (
    *("empty_day", "no_orders", "no_clicks", "row_count", "freshness"),
    *("no_accounts", "lost_records", "missing_offsets", "unread_records", "file_count"),
)
_PIP_PACKAGES = "msgspec==0.22.0,PyYAML==6.0.3"


class SettingError(Exception):
    """The message is one line that names the setting."""


class _Setting(NamedTuple):
    accepts: Callable[[Any], bool]
    what: str
    default: Any = ...  # none: it has to be set


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


def _number(least: float, most: float, kind: type | tuple[type, ...] = int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most


def _is_zone(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ZoneInfo(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False


def _is_catalog(value: Any) -> bool:
    key = _text(r"[\w.-]+")
    return isinstance(value, dict) and value != {} and all(key(k) and isinstance(v, str) for k, v in value.items())


_BUCKET = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
_FOLDER = rf"(gs://{_BUCKET}|file://)(/[\w.=+-]+)+"
_DURATION = r"[1-9]\d*(ms|s|m|h|d)"
_A_FOLDER = "a folder such as gs://bucket/path"
_SETTINGS = {
    "project": _Setting(_text(r"[a-z][a-z0-9-]{4,28}[a-z0-9]"), "a Google Cloud project's id"),
    "region": _Setting(_text(r"[a-z]+-[a-z]+\d+"), "a region such as europe-west1"),
    "bucket": _Setting(_text(_BUCKET), "a bucket's name, without gs://"),
    "code": _Setting(_text(_FOLDER), _A_FOLDER),
    "archive": _Setting(_text(_FOLDER), _A_FOLDER),
    "stream": _Setting(_text(rf"bigquery://[a-z][a-z0-9-]{{4,28}}[a-z0-9]\.\w{{1,1024}}|{_FOLDER}"),
                       "bigquery://project.dataset, or a folder"),
    "warehouse": _Setting(_text(_FOLDER), _A_FOLDER),
    "report": _Setting(_text(_FOLDER), _A_FOLDER),
    "catalog": _Setting(_is_catalog, "an object of texts such as {\"type\": \"rest\", \"uri\": \"…\"}"),
    "namespace": _Setting(_text(r"[a-z_][a-z0-9_]*"), "a name", "analytics"),
    "jars": _Setting(lambda v: isinstance(v, list) and all(map(_text(r"(gs|file)://[\w./=+-]+\.jar"), v)),
                     "a list of gs://….jar or file:///….jar", []),
    "service_account": _Setting(_text(r"[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9.-]+\.gserviceaccount\.com"),
                                "a service account's address"),
    "subnetwork": _Setting(_text(r"(projects/[a-z0-9-]+/regions/[a-z0-9-]+/subnetworks/)?[a-z][a-z0-9-]{0,62}"),
                           "a subnetwork's name or path", "default"),
    "cluster_prefix": _Setting(_text(r"[a-z][a-z0-9-]{0,29}"), "at most 30 of a-z, 0-9 and -", "daily-analytics"),
    "image": _Setting(_text(r"2\.[23](\.\d+)?-(debian|ubuntu|rocky|ml-ubuntu)\d+"),
                      "a Dataproc image with Spark 3.5 such as 2.2-debian12", "2.2-debian12"),
    "machine_type": _Setting(_text(r"[a-z][a-z0-9]*-[a-z0-9-]+"), "a machine type", "n2-standard-4"),
    "workers": _Setting(_number(2, 100), "a number from 2 to 100", 2),
    "max_differences": _Setting(_number(0, 2**53), "a number from 0", 0),
    "max_amount_minor": _Setting(_number(0, 2**53), "a number from 0, in minor units", 0),
    "row_count_factor": _Setting(_number(1, 1000, (int, float)), "a number from 1 to 1000", 3),
    "freshness": _Setting(_text(_DURATION), "a time such as 1h", "1h"),
    "rules": _Setting(_text(rf"{_FOLDER}\.ya?ml"), "a file such as gs://bucket/rules.yaml", None),
    "currency": _Setting(_text("[A-Z]{3}"), "a currency such as TRY", "TRY"),
    "time_zone": _Setting(_is_zone, "a time zone such as Europe/Istanbul", "UTC"),
    "session_gap": _Setting(_text(_DURATION), "a time such as 30m", "30m"),
    "max_session": _Setting(_text(_DURATION), "a time such as 12h", "12h"),
    "settle": _Setting(_text(_DURATION), "a time such as 15m", "15m"),
    "keep_snapshots": _Setting(_text(_DURATION), "a time such as 7d", "7d"),
}  # fmt: skip

_JOB_FLAGS = (
    *("archive", "stream", "warehouse", "report", "namespace", "max_differences", "max_amount_minor"),
    *("row_count_factor", "freshness", "session_gap", "max_session", "settle", "keep_snapshots"),
    *("currency", "time_zone"),
)
STEPS = ("compute", "reconcile", "quality", "publish", "catch_up", "maintain")


def settings_of(text: str | None) -> dict[str, Any]:
    """The variable's settings, complete with defaults.

    Raises:
      SettingError: one is missing, unknown or not of its kind.
    """
    if text is None:
        raise SettingError(f"the Airflow variable {_VARIABLE} is not set; docs/airflow.md says what it holds")
    try:
        given = json.loads(text)
    except ValueError as error:
        raise SettingError(f"the Airflow variable {_VARIABLE} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise SettingError(f"the Airflow variable {_VARIABLE} is not a JSON object")
    if unknown := sorted(given.keys() - _SETTINGS.keys()):
        raise SettingError(f"variable {_VARIABLE}: there is no setting {', '.join(map(json.dumps, unknown))}")
    if missing := [name for name, s in _SETTINGS.items() if s.default is ... and name not in given]:
        raise SettingError(f"variable {_VARIABLE}: {', '.join(missing)} must be set")
    for name, value in given.items():
        if not _SETTINGS[name].accepts(value):
            raise SettingError(f"variable {_VARIABLE}: {name}: {json.dumps(value)} is not {_SETTINGS[name].what}")
    return {name: given.get(name, s.default) for name, s in _SETTINGS.items()}


def day_of(params: Mapping[str, Any], interval_start: datetime | None, today: date, zone: str = "UTC") -> date:
    """The shop's day that a run computes. A run's own is the one in which its interval begins, 3:00 UTC: wherever that
    is, the day is over when the interval is.

    Raises:
      SettingError: none is given, it is not over, or it is an old one and this is no backfill.
    """
    if params["date"] is None:
        if interval_start is None:
            raise SettingError("date: a run without a data interval needs one")
        day = interval_start.astimezone(ZoneInfo(zone)).date()
    else:
        try:
            day = date.fromisoformat(params["date"])
        except ValueError:
            raise SettingError(f"date: {params['date']!r} is not a date such as 2026-11-22") from None
        if day < today - timedelta(days=_MAY_REDO_DAYS) and not params["backfill"]:
            raise SettingError(f"date: {day} is more than {_MAY_REDO_DAYS} days ago; set backfill to replace that day")
    if day >= today:
        raise SettingError(f"date: {day} is not over yet ({zone})")
    return day


def plan_of(
    settings: Mapping[str, Any], params: Mapping[str, Any], day: date, run_id: str, who: str = ""
) -> dict[str, Any]:
    """What the other tasks take from `plan`: names, the cluster, and the flags of each step."""
    # By the run, so that another run of the same day has another cluster, and deletes only its own.
    run = f"{day:%Y%m%d}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"
    limits = {name: params[name] for name in ("max_differences", "max_amount_minor") if params[name] is not None}
    flags = [f"--{name}={value}" for name, value in ({**settings, **limits}).items() if name in _JOB_FLAGS]
    flags += [f"--catalog_conf={key}={value}" for key, value in sorted(settings["catalog"].items())]
    flags += [f"--accept={name}" for name in sorted(set(params["accept"]))]
    if params["accept"]:
        flags += [f"--accepted_by={who}", f"--why={params['why']}"]
    rules = settings["rules"]
    if rules:
        flags.append(f"--rules={rules.rpartition('/')[2]}")  # Dataproc puts the file where the driver runs
    return {
        "run": run,
        "project": settings["project"],
        "region": settings["region"],
        "cluster_name": f"{settings['cluster_prefix'].rstrip('-')}-{run}",
        "cluster_config": _cluster(settings),
        "job_file": f"{settings['code']}/daily_analytics.py",
        "packages": [f"{settings['code']}/streamforge.zip"],
        "jars": settings["jars"],
        "files": [rules] if rules else [],
        **{step: [f"--date={day}", f"--step={step}", *flags] for step in STEPS},
    }


def _cluster(settings: Mapping[str, Any]) -> dict[str, Any]:
    def machines(count: int) -> dict[str, Any]:
        disk = {"boot_disk_type": "pd-balanced", "boot_disk_size_gb": 100}
        return {"num_instances": count, "machine_type_uri": settings["machine_type"], "disk_config": disk}

    return {
        "config_bucket": settings["bucket"],
        "gce_cluster_config": {
            "service_account": settings["service_account"],
            "service_account_scopes": ["https://www.googleapis.com/auth/cloud-platform"],
            "subnetwork_uri": settings["subnetwork"],
            "internal_ip_only": True,
            "shielded_instance_config": {"enable_secure_boot": True, "enable_vtpm": True},
        },
        "master_config": machines(1),
        "worker_config": machines(settings["workers"]),
        "software_config": {
            "image_version": settings["image"],
            "properties": {"dataproc:pip.packages": _PIP_PACKAGES},
        },
        # When Airflow is gone, or cannot delete it. Idle is longer than a task waits for its next try.
        "lifecycle_config": {"idle_delete_ttl": {"seconds": 3600}, "auto_delete_ttl": {"seconds": 14 * 3600}},
    }


class SparkStep(DataprocSubmitJobOperator):
    """A step of the job, which waits in the triggerer.

    Beyond the provider's: `execution_timeout` also ends the waiting, and a job that is given up is cancelled, so that
    the next try is alone. A failure quotes the job's last words. A failed gate is not retried.
    """

    def execute(self, context: Any) -> str | None:
        try:
            return super().execute(context)
        except AirflowException:  # the job was over before it was waited for
            self._fail()

    def defer(self, *, trigger: Any, method_name: str, kwargs: Any = None, timeout: Any = None) -> NoReturn:
        super().defer(
            trigger=trigger, method_name=method_name, kwargs=kwargs, timeout=timeout or self.execution_timeout
        )

    def resume_execution(self, next_method: str, next_kwargs: Any, context: Any) -> Any:
        if next_method == "__fail__":  # time is up, or the triggerer could not ask
            self.log.error("giving up job %s", self._id)
            self._hook.cancel_job(job_id=self._id, project_id=self.project_id, region=self.region)
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Any, event: Any = None) -> str:  # noqa: ARG002 - the provider's signature
        if event["job_state"] != JobStatus.State.DONE.name:
            self._fail()
        return self._id

    @property
    def _id(self) -> str:
        return self.job["reference"]["job_id"]

    @property
    def _hook(self) -> DataprocHook:
        return DataprocHook(gcp_conn_id=self.gcp_conn_id, impersonation_chain=self.impersonation_chain)

    def _fail(self) -> NoReturn:
        job = self._hook.get_job(job_id=self._id, project_id=self.project_id, region=self.region)
        lines = [
            line for line in self._output(job.driver_output_resource_uri).splitlines() if not _SPARK_SAYS.match(line)
        ]
        self.log.error("the last lines of job %s:\n%s", self._id, "\n".join(lines[-40:]))
        said = next((line for line in reversed(lines) if line.startswith("daily_analytics: ")), None)
        if said and said.startswith(GATE_FAILED):
            raise AirflowFailException(said.removeprefix("daily_analytics: "))
        raise AirflowException(f"job {self._id}: {job.status.state.name}: {said or job.status.details}")

    def _output(self, uri: str) -> str:
        """The end of what the driver wrote; it is in parts, of which the last have the largest numbers."""
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        files = GCSHook(gcp_conn_id=self.gcp_conn_id, impersonation_chain=self.impersonation_chain)
        try:
            parts = sorted(files.list(bucket, prefix=prefix)) if prefix else []
            return b"".join(files.download(bucket, part) for part in parts[-2:]).decode(errors="replace")
        except GoogleAPICallError as error:
            # Without it the step is only tried more often than it need be, and fails all the same.
            return f"{uri} could not be read: {error}"


@task(execution_timeout=timedelta(minutes=10))
def plan(
    params: Any = None, run_id: Any = None, data_interval_start: Any = None, dag_run: Any = None
) -> dict[str, Any]:
    try:
        settings = settings_of(Variable.get(_VARIABLE, default=None))
        zone = settings["time_zone"]
        day = day_of(params, data_interval_start, datetime.now(ZoneInfo(zone)).date(), zone)
    except SettingError as error:
        raise AirflowFailException(str(error)) from None
    return plan_of(settings, params, day, run_id, getattr(dag_run, "triggering_user_name", None) or "")


def _step(name: str, planned: XComArg, most: timedelta) -> SparkStep:
    """A step's task, which may take so long each time that it is tried."""
    job_id = f"{{{{ ti.xcom_pull('plan', key='run') }}}}-{name}-{{{{ ti.try_number }}}}"
    return SparkStep(
        task_id=name,
        project_id=planned["project"],
        region=planned["region"],
        request_id=job_id,  # a submission that is sent again, as the answer was lost, starts no second job
        job={
            "reference": {"project_id": planned["project"], "job_id": job_id},
            "placement": {"cluster_name": planned["cluster_name"]},
            "labels": {"app": "streamforge", "step": name},
            "pyspark_job": {
                "main_python_file_uri": planned["job_file"],
                "python_file_uris": planned["packages"],
                "jar_file_uris": planned["jars"],
                "file_uris": planned["files"],
                "args": planned[name],
            },
        },
        deferrable=True,
        polling_interval_seconds=15,
        execution_timeout=most,
    )


with DAG(
    "daily_analytics",
    description="The day recomputed from the archive, compared with the stream, published when they agree",
    doc_md=DOC,
    # Three hours after midnight nearly every session that began on the day is over.
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # each missed day would be a cluster: days are made up for by a backfill, when someone says so
    max_active_runs=1,
    # No dagrun_timeout: a run that it ends does not get to delete its cluster. Each task has a time-out of its own.
    default_args={"owner": "streamforge", "retries": 2, "retry_delay": timedelta(minutes=5)},
    params={
        "date": Param(None, type=["null", "string"], format="date", description="the shop's day; else the run's own"),
        "backfill": Param(False, type="boolean", description="allow a date more than 7 days back"),
        "max_differences": Param(None, type=["null", "integer"], minimum=0, description="rows, for this run"),
        "max_amount_minor": Param(None, type=["null", "integer"], minimum=0, description="amount, for this run"),
        "accept": Param(
            [], type="array", items={"type": "string", "enum": list(_GAPS)}, description="gaps to bear, for this run"
        ),
        "why": Param("", type="string", maxLength=500, description="what was understood of them, for the report"),
    },
    tags=["streamforge", "batch"],
) as dag:
    planned = plan()
    names = {
        "project_id": planned["project"],
        "region": planned["region"],
        "cluster_name": planned["cluster_name"],
    }
    create = DataprocCreateClusterOperator(
        task_id="create_cluster",
        **names,
        cluster_config=planned["cluster_config"],
        labels={"app": "streamforge"},
        timeout=30 * 60,
        execution_timeout=timedelta(minutes=40),
    )
    compute = _step("compute", planned, timedelta(hours=3))
    gates = [_step(name, planned, timedelta(hours=1)) for name in ("reconcile", "quality")]
    publish = _step("publish", planned, timedelta(minutes=30))
    catch_up = _step("catch_up", planned, timedelta(hours=3))
    maintain = _step("maintain", planned, timedelta(hours=2))
    delete = DataprocDeleteClusterOperator(
        task_id="delete_cluster",
        **names,
        timeout=20 * 60,
        execution_timeout=timedelta(minutes=30),
        retries=5,
    )
    create >> compute >> gates >> publish >> catch_up >> maintain >> delete
    # plan is a set-up, too: a cluster whose creation failed half way has to go as well.
    delete.as_teardown(setups=[planned.operator, create])
    # A teardown either does not affect the run's state or decides it alone: with on_failure_fail_dagrun it would be
    # the only leaf, and a run whose gate failed would succeed. So a separate leaf fails the run if a cluster remains.
    delete >> EmptyOperator(task_id="cluster_is_gone", execution_timeout=timedelta(minutes=10))
