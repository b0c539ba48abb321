"""Generated files follow from the declarations: none is stale, and a job that is declared is in all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hcl2
import msgspec
import pytest
import yaml

from beam_pipelines import connect, flags, generate, options
from beam_pipelines.run import run
from schemas.events import Long
from schemas.flags import UsageError
from schemas.jobs import JOBS, Flag, Job, Rows, State
from tests.live import ROOT

NOW = generate.artefacts(JOBS.values())


class CouponMinute(msgspec.Struct, frozen=True):
    """Coupons of a minute."""

    window_start: Long
    value: str
    version: Long


COUPONS = Job(
    module="coupons",
    name="coupon-counter",
    summary="Reads coupons, counts them.",
    topics=("shop.coupons",),
    tables=(
        Rows(
            "coupon_minutes",
            CouponMinute,
            key=("window_start",),
            day="window_start",
            cluster_by=("value",),
            topic="analytics.coupons",
            topic_key=("value",),
            topic_time="window_start",
        ),
    ),
    reads="topic `shop.coupons`, or files",
    writes="coupons by the minute to topic `analytics.coupons`",
    flags=(
        Flag("least_value", "count", "coupons of less are not counted", "3", note="In minor units."),
        Flag("coupon_life", "lasting", "how long a coupon can be used", "2h"),
    ),
    state=(State("coupons", "a late one counts", spans=("allowed_lateness",), within="coupon_life"),),
    online=False,
)
OF_OTHERS = {
    "docs/architecture.md",
    "docs/mapping.md",
    "helm/streamforge/Chart.yaml",
    *(path for path in NOW if "/dashboards/" in path or "metadata" in path),
}


@pytest.mark.parametrize("path", NOW)
def test_what_is_committed_is_what_the_declarations_say(path: str) -> None:
    assert (ROOT / path).read_text() == NOW[path], "run: make generate"


def test_the_command_writes_every_artefact_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.main([f"--to={tmp_path}"])
    assert {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == NOW
    assert capsys.readouterr().out.splitlines() == list(NOW)
    generate.main([f"--to={tmp_path}"])
    assert capsys.readouterr().out == ""


def test_a_flag_without_a_default_has_no_value_in_the_chart() -> None:
    jobs = yaml.safe_load(NOW["helm/streamforge/values.yaml"])["jobs"]
    assert "None" not in [value for job in jobs.values() for value in job.get("flags", {}).values()]


def test_a_file_that_lost_its_section_is_found(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no section")
    with pytest.raises(ValueError, match=r"README.md has 0 sections"):
        generate._with_section(tmp_path / "README.md", [])


def test_a_job_that_is_declared_is_in_everything_that_is_made_of_jobs() -> None:
    made = generate.artefacts((*JOBS.values(), COUPONS))
    assert {path for path, text in made.items() if text != NOW.get(path)} == made.keys() - OF_OTHERS

    topics = json.loads(made["terraform/modules/kafka/topics.json"])
    assert topics.keys() >= {"shop.coupons", "analytics.coupons", "dlq.coupon-counter", "late.coupon-counter"}
    assert topics["dlq.coupon-counter"] == {"max.message.bytes": "4194304"}
    tables = json.loads(made["terraform/modules/bigquery/tables.json"])
    assert "coupon_minutes_current" in tables
    assert [c["type"] for c in tables["coupon_minutes"]["schema"]["fields"]] == ["TIMESTAMP", "STRING", "INT64"]
    assert json.loads(made["schemas/avro/CouponMinute.avsc"])["doc"] == "Coupons of a minute."
    assert made["schemas/avro/history/CouponMinute/1.avsc"] == made["schemas/avro/CouponMinute.avsc"]

    values = yaml.safe_load(made["helm/streamforge/values.yaml"])["jobs"]["coupons"]
    assert values == {
        "enabled": True,
        "inputs": ["shop.coupons"],
        "outputs": {"topic": "analytics.coupons", "bigquery": True},
        "flags": {"leastValue": 3, "couponLife": "2h"},
    }
    assert json.loads(made["helm/streamforge/files/jobs.json"])["coupons"] == "coupon-counter"
    schema = json.loads(made["helm/streamforge/values.schema.json"])["properties"]["jobs"]
    assert "coupons" in schema["required"]
    own = schema["properties"]["coupons"]["properties"]["flags"]["properties"]
    assert own.keys() >= {"leastValue", "allowedLateness", "maxBundleSize"}
    assert own["leastValue"]["minimum"] == 1

    service = yaml.safe_load(made["docker/compose.yaml"])["services"]["coupons"]
    assert service["command"] == [
        "beam_pipelines.coupons",
        "--input=kafka://kafka:9092/shop.coupons",
        "--output=kafka://kafka:9092/analytics.coupons",
    ]
    (flex,) = (t["flex"] for t in _targets(made["docker/bake.hcl"]) if "flex" in t)
    assert "coupons" in str(flex["matrix"])
    template = json.loads(made["docker/dataflow/coupons.metadata.json"])
    assert {p["name"] for p in template["parameters"]} >= {"input", "output", "least_value"}
    assert "`python -m beam_pipelines.coupons` | topic `shop.coupons`, or files" in made["README.md"]
    remembered = "| coupons | coupons | `--allowed_lateness`, less than `--coupon_life` | a late one counts |"
    assert remembered in made["docs/semantics.md"]


def _targets(text: str) -> list[dict[str, Any]]:
    return [{name.strip('"'): body for name, body in target.items()} for target in hcl2.loads(text)["target"]]


def test_its_command_line_comes_of_its_declaration() -> None:
    given, settings, _ = options.parse(COUPONS, ["--least_value=5"])
    assert given.least_value == 5
    assert [str(url.topic) for url in (*settings.inputs, settings.dead_letters, settings.late)] == [
        "shop.coupons",
        "dlq.coupon-counter",
        "late.coupon-counter",
    ]
    assert [type(url).name for url in settings.outputs] == ["Kafka"]
    with pytest.raises(UsageError, match=r"--least_value: 0 is not a whole number of at least 1"):
        options.parse(COUPONS, ["--least_value=0"])
    assert "--least_value" in flags.parser(COUPONS).format_help()


def test_what_state_must_keep_is_compared_with_its_bound_before_the_start() -> None:
    def check(*argv: str) -> None:
        given, settings, _ = options.parse(COUPONS, argv)
        options.check_state(given, settings)

    native = "--allowed_lateness=119m", "--kafka_read=native"
    check("--allowed_lateness=119m")
    check(*native, "--out_of_orderness=59s")
    for too_long in (["--allowed_lateness=2h"], [*native, "--out_of_orderness=60s"]):
        with pytest.raises(UsageError, match=r"--coupon_life: must be more than --allowed_lateness and"):
            check(*too_long)


def test_a_sink_for_which_a_job_has_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--output: redis://h:1/0: coupon-counter has nothing for that; it writes to"):
        options.parse(COUPONS, ["--output=redis://h:1/0"])


def test_a_job_whose_page_has_nothing_for_a_sink_that_it_declares_fails_loudly() -> None:
    _, settings, _ = options.parse(JOBS["fraud"], ["--output=redis://h:1/0"])
    with pytest.raises(RuntimeError, match="fraud-detector has nothing for RedisUrl"):
        connect.require_all_written(settings, set())


def test_a_job_without_its_page_cannot_run() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"beam_pipelines\.coupons"):
        run(COUPONS, [])
