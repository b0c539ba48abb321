"""Runs in Airflow's environment, for the DAG's tests: what it is asked to do on stdin, against a Dataproc of its own.

    python -m tests.dags.airflow_driver FOLDER SUBMIT

SUBMIT is the JSON of the command that runs a job. A request is a line of JSON, and so is the answer:
{"describe": true} tells what the DAG is made of. {"backfill": [from, to]} tells the days that one would run.
{"plan": {…}} makes a plan of a variable's text and parameters.
{"day", "variable", "conf", "faults", "time_out_s"} is a run of the DAG by `dag.test()`, which tells the state of the
run and of each task, how often each was tried, what Dataproc was asked for, and which clusters are left.

What a scheduler does and `dag.test()` does not is done here in the same way: a task that waits in the triggerer for
longer than it may is started again with `__fail__`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent.parent


def _environment(folder: Path) -> dict[str, str]:
    connection = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "project": "shop-test"}}
    return {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection),
    }


def _load() -> Any:
    """The DAG's file, as Airflow loads it: by its path, as no part of a package."""
    spec = importlib.util.spec_from_file_location("daily_analytics", _ROOT / "dags" / "daily_analytics.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def describe() -> dict[str, Any]:
    before = set(sys.modules)
    module = _load()
    ours = {path.name for path in _ROOT.iterdir() if path.is_dir()}
    dag = module.dag
    dag.validate()
    tasks = {
        task.task_id: {
            "upstream": sorted(task.upstream_task_ids),
            "setup": task.is_setup,
            "teardown": task.is_teardown,
            "trigger_rule": str(task.trigger_rule.value),
            "fails_the_run": task.on_failure_fail_dagrun,
            "retries": task.retries,
            "retry_delay_s": task.retry_delay.total_seconds(),
            "timeout_s": task.execution_timeout and task.execution_timeout.total_seconds(),
            "deferrable": getattr(task, "deferrable", False),
            "templated": sorted(task.template_fields),
        }
        for task in dag.topological_sort()
    }
    return {
        "imported": sorted({name.split(".")[0] for name in set(sys.modules) - before} & ours),
        "tasks": tasks,
        "doc": dag.doc_md,
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "dagrun_timeout": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds(),
        "params": sorted(dag.params),
        "ignored": (_ROOT / "dags" / ".airflowignore").read_text().split(),
        "settings": sorted(module._SETTINGS),
        "gate_failed": module.GATE_FAILED,
        "pip_packages": module._PIP_PACKAGES,
        "gaps": sorted(module._GAPS),
    }


def plan(module: Any, request: dict[str, Any]) -> dict[str, Any]:
    params = {"date": None, "backfill": False, "max_differences": None, "max_amount_minor": None}
    params |= {"accept": [], "why": ""}
    params |= request.get("params", {})
    start = request.get("interval_start")
    try:
        settings = module.settings_of(request["variable"])
        day = module.day_of(params, start and datetime.fromisoformat(start), date.fromisoformat(request["today"]))
    except module.SettingError as error:
        return {"refused": str(error)}
    return {"plan": module.plan_of(settings, params, day, request.get("run_id", "a run"), request.get("who", ""))}


def backfill(module: Any, dates: list[str]) -> list[str]:
    """As `airflow backfill create` finds them."""
    from airflow.serialization.serialized_objects import DagSerialization

    dag = DagSerialization.from_dict(DagSerialization.to_dict(module.dag))
    begin, end = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in dates)
    today = datetime.now(UTC).date()
    infos = dag.iter_dagrun_infos_between(begin, end)
    params = {"date": None, "backfill": False}
    return [str(module.day_of(params, info.data_interval.start, today)) for info in infos]


class Runner:
    """Runs the DAG, with Google's clients led to the fake."""

    def __init__(self, fake: Any, dag: Any, address: str, storage_url: str):
        self._fake, self._dag = fake, dag
        _lead_clients(address, storage_url)
        self._waits_s = 0.0
        self._messages: list[Any] = []
        self._play_the_scheduler()

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        from airflow.sdk.exceptions import AirflowException

        fake, dag = self._fake, self._dag
        fake.calls.clear()
        fake.faults.clear()
        fake.faults.update(request.get("faults", {}))
        self._waits_s = request.get("time_out_s", 600)
        for task in dag.tasks:
            task.retry_delay = timedelta(seconds=1)
            if getattr(task, "deferrable", False):
                task.polling_interval_seconds = 1
        os.environ["AIRFLOW_VAR_DAILY_ANALYTICS"] = request["variable"]
        after = datetime.fromisoformat(f"{request['day']}T05:00:00+00:00") + timedelta(days=1)
        try:
            run = dag.test(logical_date=after, run_conf=request.get("conf", {}))
        except AirflowException as error:
            return {"error": str(error)}
        tasks = {ti.task_id: {"state": str(ti.state), "tries": ti.try_number} for ti in run.get_task_instances()}
        return {
            "state": str(run.state.value),
            "tasks": tasks,
            "calls": list(fake.calls),
            "clusters": list(fake.clusters),
        }

    def _play_the_scheduler(self) -> None:
        from airflow.sdk.definitions import dag as definitions
        from airflow.sdk.execution_time import supervisor

        run_task = supervisor.run_task_in_process
        run_trigger = supervisor.InProcessTestSupervisor.run_trigger_in_process

        def remember(**of_task: Any) -> Any:
            result = run_task(**of_task)
            self._messages.append(result.msg)
            return result

        def wait(trigger: Any, ti: Any) -> Any:
            run = trigger.run

            async def bounded() -> Any:
                event, most = None, self._messages[-1].trigger_timeout.total_seconds()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(self._waits_s, most)):
                        event = await anext(run())
                if event is not None:
                    yield event

            trigger.run = bounded
            event = run_trigger(trigger=trigger, ti=ti)
            if event is None:
                self._messages[-1].next_method = "__fail__"
                self._messages[-1].next_kwargs = {"error": "Trigger timeout"}
            return event

        supervisor.run_task_in_process = remember
        definitions._run_inline_trigger = wait


def _lead_clients(address: str, storage_url: str) -> None:
    """The hooks' own clients insist on Google's addresses and on TLS."""
    import grpc
    from airflow.providers.google.cloud.hooks.dataproc import DataprocAsyncHook, DataprocHook
    from airflow.providers.google.cloud.hooks.gcs import GCSHook
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import dataproc_v1, storage

    def client(of: Any) -> Any:
        transport = of.get_transport_class("grpc")(channel=grpc.insecure_channel(address))
        return of(transport=transport)

    def async_client(of: Any) -> Any:
        transport = of.get_transport_class("grpc_asyncio")(channel=grpc.aio.insecure_channel(address))
        return of(transport=transport)

    async def job_client(*_: Any, **__: Any) -> Any:
        return async_client(dataproc_v1.JobControllerAsyncClient)

    DataprocHook.get_cluster_client = lambda *_, **__: client(dataproc_v1.ClusterControllerClient)
    DataprocHook.get_job_client = lambda *_, **__: client(dataproc_v1.JobControllerClient)
    DataprocAsyncHook.get_job_client = job_client
    GCSHook.get_conn = lambda _: storage.Client(
        "shop-test", credentials=AnonymousCredentials(), client_options={"api_endpoint": storage_url}
    )


def main(folder: Path, submit: list[str]) -> None:
    # What Airflow says goes to the log; only answers go to stdout.
    answers, sys.stdout = sys.stdout, sys.stderr
    os.environ.update(_environment(folder))
    from tests.dags.fake_dataproc import FakeDataproc

    fake = FakeDataproc(submit, folder)
    with fake.served() as addresses:
        # First of all, so that what it imports was not imported by what is here.
        described = describe()
        module, runner = _load(), None
        for line in sys.stdin:
            request = json.loads(line)
            if "describe" in request:
                answer = described
            elif "backfill" in request:
                answer = {"days": backfill(module, request["backfill"])}
            elif "plan" in request:
                answer = plan(module, request["plan"])
            else:
                if runner is None:
                    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=sys.stderr)
                    runner = Runner(fake, module.dag, *addresses)
                answer = runner.run(request)
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
