"""The DAG: what it is made of, how it plans a run, and runs of it on Airflow against a fake of Dataproc.

Here a small script stands for the Spark job; test_dag_spark.py has the real one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dags.spark.judged import GAPS
from tests.dags.airflow_environment import Airflow, started
from tests.live import ROOT

pytestmark = pytest.mark.stack

STEPS = ("compute", "reconcile", "quality", "publish", "catch_up", "maintain")
GOOD = {
    "project": "shop-test",
    "region": "europe-west1",
    "bucket": "shop-dataproc",
    "code": "gs://shop-code/batch",
    "archive": "gs://shop-archive/events",
    "stream": "bigquery://shop-test.analytics",
    "warehouse": "gs://shop-lake/warehouse",
    "report": "gs://shop-lake/reports",
    "catalog": {"type": "rest", "uri": "https://catalog.example/iceberg"},
    "service_account": "daily-analytics@shop-test.iam.gserviceaccount.com",
}
DAY, TODAY = "2026-11-21", "2026-11-22"
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("airflow")
    (found / "code").mkdir()
    (found / "code" / "daily_analytics.py").write_bytes((ROOT / "tests" / "dags" / "stub_job.py").read_bytes())
    return found


@pytest.fixture(scope="module")
def airflow(folder: Path) -> Iterator[Airflow]:
    with started(folder, [sys.executable, "{main}"]) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def dag(airflow: Airflow) -> Any:
    return airflow.ask(describe=True)


def test_parsing_it_imports_nothing_of_ours_and_leaves_the_spark_job_alone(dag: Any) -> None:
    assert dag["imported"] == []
    assert dag["ignored"] == ["spark/"]


def test_every_task_has_a_time_out_and_is_tried_again(dag: Any) -> None:
    assert dag["tasks"].keys() == {"plan", "create_cluster", *STEPS, "delete_cluster", "cluster_is_gone"}
    for name, task in dag["tasks"].items():
        assert task["retries"] >= 2, name
        assert task["retry_delay_s"] < 3600, "Dataproc deletes a cluster that is idle for an hour"
        assert 0 < task["timeout_s"] <= 3 * 3600, name
    assert dag["dagrun_timeout"] is None, "it would leave the cluster"


def test_gates_stand_before_publishing_and_the_steps_wait_in_the_triggerer(dag: Any) -> None:
    upstream = {name: set(task["upstream"]) - {"plan"} for name, task in dag["tasks"].items()}
    assert upstream["compute"] == {"create_cluster"}
    assert upstream["reconcile"] == upstream["quality"] == {"compute"}
    assert upstream["publish"] == {"reconcile", "quality"}
    assert upstream["catch_up"] == {"publish"}
    assert upstream["maintain"] == {"catch_up"}
    assert {name for name, task in dag["tasks"].items() if task["deferrable"]} == set(STEPS)
    assert {task["trigger_rule"] for name, task in dag["tasks"].items() if name != "delete_cluster"} == {"all_success"}


def test_the_cluster_is_torn_down_also_when_its_creation_failed_and_not_quietly(dag: Any) -> None:
    delete = dag["tasks"]["delete_cluster"]
    assert (delete["teardown"], delete["trigger_rule"]) == (True, "all_done_setup_success")
    assert dag["tasks"]["cluster_is_gone"]["upstream"] == ["delete_cluster"], "a teardown alone fails no run"
    assert not delete["fails_the_run"], "nor may it be the only one to decide: a closed gate would be a success"
    assert {name for name, task in dag["tasks"].items() if task["setup"]} == {"plan", "create_cluster"}
    assert {"plan", "create_cluster", "maintain"} == set(delete["upstream"])


def test_what_depends_on_settings_is_templated(dag: Any) -> None:
    for step in STEPS:
        assert {"job", "region", "project_id", "request_id"} <= set(dag["tasks"][step]["templated"])
    assert {"cluster_config", "cluster_name"} <= set(dag["tasks"]["create_cluster"]["templated"])
    assert "cluster_name" in dag["tasks"]["delete_cluster"]["templated"]


def test_one_run_at_a_time_none_by_itself_for_days_gone_by(dag: Any) -> None:
    assert dag["max_active_runs"] == 1
    assert not dag["catchup"]


def test_its_own_documentation_names_every_task_and_parameter_and_the_manual_every_setting(dag: Any) -> None:
    for name in (*dag["tasks"], *dag["params"]):
        assert f"`{name}`" in dag["doc"], name
    manual = (ROOT / "docs" / "airflow.md").read_text()
    for name in (*dag["settings"], *dag["params"]):
        assert f"`{name}`" in manual, name


def test_it_agrees_with_the_job_about_the_gates_words_and_with_its_environment_about_packages(dag: Any) -> None:
    words = dag["gate_failed"].removeprefix("daily_analytics: ")
    assert words in (ROOT / "dags" / "spark" / "daily_analytics.py").read_text()
    pinned = (ROOT / "stack" / "spark.txt").read_text().lower().split()
    assert set(dag["pip_packages"].lower().split(",")) <= set(pinned)


def planned(airflow: Airflow, given: Any, **more: Any) -> Any:
    text = given if isinstance(given, str | None) else json.dumps(given)
    return airflow.ask(plan={"variable": text, "today": TODAY, "interval_start": f"{DAY}T03:00:00+00:00", **more})


def test_a_plan_has_the_flags_of_every_step_and_a_cluster_that_ends_by_itself(airflow: Airflow) -> None:
    plan = planned(airflow, GOOD)["plan"]
    for step in STEPS:
        assert {f"--date={DAY}", f"--step={step}", "--archive=gs://shop-archive/events"} <= set(plan[step])
        assert {"--catalog_conf=type=rest", "--stream=bigquery://shop-test.analytics"} <= set(plan[step])
        assert {"--max_differences=0", "--max_amount_minor=0"} <= set(plan[step])
    config = plan["cluster_config"]
    assert config["lifecycle_config"]["idle_delete_ttl"]["seconds"] == 3600
    assert config["gce_cluster_config"]["service_account"] == GOOD["service_account"]
    assert config["gce_cluster_config"]["internal_ip_only"]
    assert plan["job_file"] == "gs://shop-code/batch/daily_analytics.py"


def test_rules_of_the_shops_own_travel_with_the_job(airflow: Airflow) -> None:
    plan = planned(airflow, {**GOOD, "rules": "gs://shop-code/batch/rules.yaml"})["plan"]
    assert plan["files"] == ["gs://shop-code/batch/rules.yaml"]
    assert "--rules=rules.yaml" in plan["compute"]


def test_a_run_may_allow_more_differences_than_the_variable(airflow: Airflow) -> None:
    plan = planned(airflow, {**GOOD, "max_differences": 2}, params={"max_amount_minor": 500})["plan"]
    assert {"--max_differences=2", "--max_amount_minor=500"} <= set(plan["reconcile"])


def test_gaps_that_a_run_bears_go_to_every_step_with_who_and_why(airflow: Airflow) -> None:
    params = {"accept": ["no_clicks", "freshness", "no_clicks"], "why": "the tag manager was off, see #12"}
    plan = planned(airflow, GOOD, params=params, who="ayse")["plan"]
    for step in STEPS:
        assert [flag for flag in plan[step] if flag.startswith(("--accept", "--why"))] == [
            *("--accept=freshness", "--accept=no_clicks"),
            *("--accepted_by=ayse", "--why=the tag manager was off, see #12"),
        ]
    assert not [flag for flag in planned(airflow, GOOD)["plan"]["quality"] if flag.startswith("--accept")]


def test_it_knows_the_gaps_that_the_job_knows_and_the_manual_names_each(dag: Any) -> None:
    assert dag["gaps"] == sorted(GAPS)
    manual = (ROOT / "docs" / "batch.md").read_text()
    for name in GAPS:
        assert f"`{name}`" in manual, name


def test_the_manuals_backfill_does_every_day_that_it_says(airflow: Airflow) -> None:
    text = (ROOT / "docs" / "airflow.md").read_text()
    (command,) = re.findall(r"airflow backfill create [^`]*--from-date (\S+) --to-date (\S+?)`", text)
    first, last = re.findall(r"from (\d{4}-\d\d-\d\d) to (\d{4}-\d\d-\d\d)", text)[0]
    days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    wanted = [str(date.fromisoformat(first) + timedelta(days=i)) for i in range(days)]
    assert airflow.ask(backfill=list(command))["days"] == wanted
    assert len(wanted) == 7


@FEW
@given(prefix=st.from_regex(r"[a-z][a-z0-9-]{0,29}", fullmatch=True), runs=st.lists(st.text(), min_size=2, unique=True))
def test_each_run_has_a_cluster_of_its_own_whose_name_dataproc_takes(
    airflow: Airflow, prefix: str, runs: list[str]
) -> None:
    plans = [planned(airflow, {**GOOD, "cluster_prefix": prefix}, run_id=run)["plan"] for run in runs]
    assert len({plan["cluster_name"] for plan in plans}) == len(runs)
    for plan in plans:
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,49}[a-z0-9]", plan["cluster_name"])
        assert re.fullmatch(r"[a-z0-9-]{1,40}", f"{plan['run']}-reconcile-99")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@FEW
@given(text=st.text() | _JSON.map(json.dumps), name=st.sampled_from(sorted(GOOD)), value=_JSON)
def test_what_is_wrong_with_the_variable_is_one_line_that_names_it(
    airflow: Airflow, text: str, name: str, value: Any
) -> None:
    for variable in (text, {**GOOD, name: value}, {k: v for k, v in GOOD.items() if k != name}):
        answer = planned(airflow, variable)
        if "plan" in answer:
            assert isinstance(value, str | dict), "only such a thing may be right"
            continue
        assert "daily_analytics" in answer["refused"]
        assert len(answer["refused"].splitlines()) == 1
        if variable is not text:
            assert name in answer["refused"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"code": "gs://b"}, 'code: "gs://b" is not a folder such as gs://bucket/path'),
        ({"stream": "bigquery://shop"}, "stream: "),
        ({"image": "2.1-debian11"}, "image: "),
        ({"workers": 1}, "workers: 1 is not a number from 2 to 100"),
        ({"max_differences": True}, "max_differences: true is not a number"),
        ({"freshness": "soon"}, "freshness: "),
        ({"jars": "gs://b/x.jar"}, "jars: "),
        ({"rules": "gs://b/rules.txt"}, "rules: "),
        ({"catalog": {}}, "catalog: "),
        ({"catalog": {"a b": "c"}}, "catalog: "),
        ({"archiv": "gs://a/b"}, 'there is no setting "archiv"'),
    ],
)
def test_a_wrong_setting_is_named(airflow: Airflow, change: dict[str, Any], why: str) -> None:
    assert why in planned(airflow, {**GOOD, **change})["refused"]


def test_a_variable_that_is_not_there_is_said_to_be_missing(airflow: Airflow) -> None:
    assert "is not set" in planned(airflow, None)["refused"]


@FEW
@given(days_ago=st.integers(-5, 60), backfill=st.booleans())
def test_only_days_that_are_over_are_computed_and_old_ones_only_on_purpose(
    airflow: Airflow, days_ago: int, backfill: bool
) -> None:
    day = date.fromisoformat(TODAY) - timedelta(days=days_ago)
    by_hand = planned(airflow, GOOD, params={"date": str(day), "backfill": backfill}, interval_start=None)
    by_schedule = planned(airflow, GOOD, interval_start=f"{day}T03:00:00+00:00")
    assert ("plan" in by_schedule) == (days_ago >= 1)
    assert ("plan" in by_hand) == (days_ago >= 1 and (days_ago <= 7 or backfill))
    for answer in (by_hand, by_schedule):
        if "plan" in answer:
            assert f"--date={day}" in answer["plan"]["compute"]
        else:
            assert answer["refused"].startswith("date: ")


def test_a_run_with_neither_date_nor_interval_is_refused(airflow: Airflow) -> None:
    assert planned(airflow, GOOD, interval_start=None)["refused"].startswith("date: ")


@pytest.fixture
def run(airflow: Airflow, folder: Path) -> Any:
    """Runs the DAG on the stub; steps end as told, and Dataproc has the faults told."""

    def once(day: str, ends: dict[str, int] | None = None, change: dict[str, Any] | None = None, **more: Any) -> Any:
        (folder / "ends.json").write_text(json.dumps(ends or {}))
        local = {name: f"file://{folder}/{name}" for name in ("code", "archive", "stream", "warehouse", "report")}
        return airflow.run(day, variable=json.dumps({**GOOD, **local, **(change or {})}), **more)

    return once


def states(found: Any) -> dict[str, str]:
    return {name: task["state"] for name, task in found["tasks"].items()}


def submitted(found: Any) -> list[str]:
    return [call.removeprefix("submit_job ") for call in found["calls"] if call.startswith("submit_job")]


def test_a_good_day_goes_through_every_step_once_and_leaves_no_cluster(run: Any) -> None:
    found = run("2026-11-01")
    assert found["state"] == "success"
    assert {(task["state"], task["tries"]) for task in found["tasks"].values()} == {("success", 1)}
    assert sorted(submitted(found)) == sorted(STEPS)
    assert (found["calls"][0], found["calls"][-1]) == ("create_cluster", "delete_cluster")
    assert found["clusters"] == []


def test_a_gate_that_says_no_is_not_asked_again_nothing_is_published_and_the_run_fails(run: Any) -> None:
    found = run("2026-11-02", ends={"reconcile": 3})
    assert found["state"] == "failed"
    assert states(found)["reconcile"] == "failed"
    assert states(found)["quality"] == "success", "the other gate is asked all the same"
    assert sorted(submitted(found)) == ["compute", "quality", "reconcile"]
    assert (states(found)["publish"], states(found)["delete_cluster"]) == ("upstream_failed", "success")
    assert found["clusters"] == []
    assert "a gate failed: reconcile: it does not like the day" in found["log"]


def test_a_step_that_fails_every_time_is_tried_three_times_and_the_cluster_is_deleted(run: Any) -> None:
    found = run("2026-11-03", ends={"compute": 1})
    assert found["state"] == "failed"
    assert submitted(found) == ["compute"] * 3
    assert found["clusters"] == []
    assert "compute of 2026-11-03" in found["log"], "what the job said is in Airflow's log"
    assert "Spark says much at its end" not in found["log"], "but not what Spark said"


def test_what_fails_once_is_tried_again_and_the_day_is_published(run: Any) -> None:
    """Creation, which leaves a broken cluster; a lost job; a job that hangs, which is cancelled first."""
    found = run("2026-11-04", faults={"create_cluster": 1, "fail quality": 1, "hang compute": 1}, time_out_s=3)
    assert found["state"] == "success"
    assert found["calls"][:3] == ["create_cluster", "delete_cluster", "create_cluster"]
    assert found["calls"][3:6] == ["submit_job compute", "cancel_job compute", "submit_job compute"]
    assert submitted(found).count("quality") == 2
    assert {name for name, task in found["tasks"].items() if task["tries"] > 1} == {
        "create_cluster",
        "compute",
        "quality",
    }
    assert found["clusters"] == []


def test_a_broken_cluster_that_could_not_be_deleted_at_once_is_deleted_in_the_end(run: Any) -> None:
    """Creating deletes what it left, and fails at it each time; then deleting fails once more."""
    found = run("2026-11-05", faults={"create_cluster": 1, "delete_cluster": 4})
    assert found["state"] == "failed"
    assert submitted(found) == []
    assert (states(found)["create_cluster"], states(found)["delete_cluster"]) == ("failed", "success")
    assert found["tasks"]["delete_cluster"]["tries"] == 2
    assert found["clusters"] == []


def test_a_cluster_that_stays_fails_the_run_although_the_day_is_published(run: Any) -> None:
    found = run("2026-11-06", faults={"delete_cluster": 99})
    assert (states(found)["publish"], states(found)["delete_cluster"]) == ("success", "failed")
    assert found["state"] == "failed"
    assert len(found["clusters"]) == 1


def test_a_wrong_setting_fails_the_run_before_anything_is_started(run: Any) -> None:
    found = run("2026-11-07", change={"workers": "two"})
    assert found["state"] == "failed"
    assert found["tasks"]["plan"] == {"state": "failed", "tries": 1}
    assert found["calls"] == []
    assert (
        'AirflowFailException: variable daily_analytics: workers: "two" is not a number from 2 to 100' in found["log"]
    )


def test_a_date_that_is_none_is_refused_before_there_is_a_run(run: Any) -> None:
    assert "date" in run("2026-11-08", conf={"date": "yesterday"})["error"]
