"""The API's Deployment: every flag is one that the server takes, and it is replaced without a gap."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import serving
import serving.ingest.check
from schemas.jobs import JOBS
from serving.__main__ import _parser
from serving.ingest.intake import KINDS
from tests.helm.chart import CHART, ENVIRONMENTS, refusal, render, told
from tests.helm.mounted import here

pytestmark = pytest.mark.deploy


def deployment(environment: str = "prod", values: Any = None) -> dict[str, Any]:
    return render(environment, values).one("Deployment", "streamforge-api")["spec"]


def container(environment: str = "prod", values: Any = None) -> dict[str, Any]:
    (found,) = deployment(environment, values)["template"]["spec"]["containers"]
    return found


def parsed(args: list[str], tmp_path: Path) -> Namespace:
    """What the server's own parser makes of the arguments; files that a Secret would hold are made up."""
    assert args[:2] == ["-m", "serving"]
    return _parser().parse_args(here(args[2:], tmp_path))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_server_takes_every_flag_that_the_chart_gives_it(environment: str, tmp_path: Path) -> None:
    found = parsed(container(environment)["args"], tmp_path)
    assert (found.host, found.port, found.metrics_port) == ("0.0.0.0", 8090, 9090)
    values = told(environment)
    assert found.kafka == values["kafka"]["servers"]
    assert found.redis == (values["redis"]["url"] or "redis://streamforge-redis:6379/0")
    assert bool(found.store_config) is (environment != "dev")
    assert bool(found.api_keys) is (environment != "dev")


def test_a_flag_that_the_server_does_not_know_would_be_found(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        parsed([*container()["args"], "--sessions=1"], tmp_path)


def test_a_value_is_the_flag_of_the_same_name(tmp_path: Path) -> None:
    api = {
        "workers": 3,
        "redisTimeout": 0.25,
        "redisConnections": 9,
        "streams": 0,
        "rateLimit": "50/minute",
        "corsOrigins": ["https://shop.example", "https://admin.shop.example"],
        "accessLog": "route",
        "timeZone": "Europe/Istanbul",
        "kafkaProgress": False,
        "batchReport": "gs://shop-lake/reports",
    }
    values = {"api": api, "jobDefaults": {"flags": {"currency": "EUR"}}}
    found = parsed(container(values=values)["args"], tmp_path)
    assert (found.currency, found.time_zone) == ("EUR", "Europe/Istanbul")
    assert (found.workers, found.redis_timeout, found.redis_connections, found.streams) == (3, 0.25, 9, 0)
    assert (found.rate_limit, found.access_log, found.kafka) == ("50/minute", "route", None)
    assert found.cors_origin == api["corsOrigins"]
    assert found.batch_report == api["batchReport"]


EVENTS = {"enabled": True, "mappings": ["shopify"], "webhooksSecret": {"name": "shop-webhooks"}, "rate": "9/second"}


def test_events_are_taken_where_the_values_say_so_and_signed_by_a_secret(tmp_path: Path) -> None:
    values = {"api": {"events": EVENTS}, "registry": {"url": "https://registry.shop.example/ccompat"}}
    found = parsed(container(values=values)["args"], tmp_path)
    told_ = told("prod")
    assert (found.events, found.event_rate) == (f"kafka://{told_['kafka']['servers']}", "9/second")
    assert str(found.registry) == "https://registry.shop.example/ccompat"
    assert found.mapping == ["shopify"]
    serving.ingest.check.check_events(
        serving.Config(events=found.events, api_keys=found.api_keys, mappings=("shopify",), webhooks=found.webhooks),
        found.host,
    )
    spec = deployment(values=values)["template"]["spec"]
    assert {"name": "webhooks", "secret": {"secretName": "shop-webhooks"}} in spec["volumes"]
    assert parsed(container()["args"], tmp_path).events is None


def test_events_without_keys_are_refused() -> None:
    assert "api.keysSecret is needed" in refusal("dev", {"api": {"events": {"enabled": True}}})


def test_events_that_would_go_to_another_shops_topics_are_refused() -> None:
    assert "without kafka.prefix" in refusal("prod", {"api": {"events": EVENTS}, "kafka": {"prefix": "shop-a."}})


@pytest.mark.parametrize("topic", [kind.topic for kind in KINDS.values()])
def test_events_that_no_job_would_read_are_refused(topic: str) -> None:
    readers = [name for name, job in JOBS.items() if topic in job.topics]
    assert len(readers) > 1
    elsewhere = {name: {"inputs": [f"shop.{each}" for each in JOBS[name].topics]} for name in readers}
    assert f"they go to {topic}, which" in refusal("prod", {"api": {"events": EVENTS}, "jobs": elsewhere})
    one_reads = {name: job for name, job in elsewhere.items() if name != readers[0]}
    other = {kind.topic for kind in KINDS.values()} - {topic}
    one_reads[readers[-1]]["inputs"] += other  # that they are read is not what is asked here
    render("prod", {"api": {"events": EVENTS}, "jobs": one_reads})


RULES = (CHART.parents[1] / "transforms" / "domain" / "fraud_rules.yaml").read_text()


def test_orders_are_decided_where_the_values_say_so_by_the_rules_of_the_job(tmp_path: Path) -> None:
    def decided(values: dict[str, Any]) -> Namespace:
        return parsed(container(values=values)["args"], tmp_path)

    assert not parsed(container()["args"], tmp_path).decisions
    on = {"enabled": True, "whenDown": "review", "mappings": ["shopify"]}
    found = decided({"api": {"decisions": on}})
    assert (found.decisions, found.when_down, found.mapping, found.rules) == (True, "review", ["shopify"], None)
    values = {"api": {"decisions": on}, "jobs": {"fraud": {"rules": RULES}}}
    assert Path(decided(values).rules).name == "fraud_rules.yaml"
    manifests = render("prod", values)
    template = manifests.one("Deployment", "streamforge-api")["spec"]["template"]
    (volume,) = [each for each in template["spec"]["volumes"] if each["name"] == "rules"]
    assert RULES in manifests.one("ConfigMap", volume["configMap"]["name"])["data"].values()
    other = deployment(values={**values, "jobs": {"fraud": {"rules": f"{RULES}# other"}}})["template"]
    assert other["metadata"]["annotations"] != template["metadata"]["annotations"], "pods begin anew with other rules"
    both = decided({"api": {"decisions": on, "events": {**EVENTS, "mappings": ["shopify", "ga4"]}}})
    assert both.mapping == ["shopify", "ga4"], "each once: a second would be refused"


@pytest.mark.parametrize(
    ("jobs", "why"),
    [
        ({"revenue": {"enabled": False}}, "enable jobs.revenue, with outputs.redis"),
        ({"revenue": {"outputs": {"redis": False}}}, "enable jobs.revenue, with outputs.redis"),
        ({"fraud": {"enabled": False, "rules": "x"}}, "enable jobs.fraud"),
    ],
)
def test_decisions_by_orders_or_rules_that_nobody_provides_are_refused(jobs: dict[str, Any], why: str) -> None:
    assert why in refusal("prod", {"api": {"decisions": {"enabled": True}}, "jobs": jobs})


def test_every_flag_of_the_server_is_given_or_can_be(tmp_path: Path) -> None:
    everything = {
        "kafka": {"configSecret": {"name": "kafka-login"}},
        "registry": {"configSecret": {"name": "registry-login"}},
        "api": {
            "rateLimit": "1/second",
            "corsOrigins": ["https://shop.example"],
            "batchReport": "gs://shop-lake/r",
            "events": EVENTS,
            "decisions": {"enabled": True},
        },
        "jobs": {"fraud": {"rules": RULES}},
    }
    shop = {"kafka": {"prefix": "shop-a."}}
    words = [*container(values=everything)["args"][2:], *container(values=shop)["args"][2:]]
    given = {word.partition("=")[0].removeprefix("--") for word in words}
    assert given == vars(_parser().parse_args([])).keys()


def test_probes_ask_routes_that_the_api_has() -> None:
    routes = {rule.rule for rule in serving.create_app(serving.Config()).url_map.iter_rules()}
    found = container()
    ports = {p["name"]: p["containerPort"] for p in found["ports"]}
    assert ports == {"http": 8090, "metrics": 9090}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = found[probe]["httpGet"]
        assert asked["path"] in routes, probe
        assert asked["port"] == "http"
    # A store that is away is no reason to restart the server, nor to take its pods out: they answer 503.
    assert found["livenessProbe"]["httpGet"]["path"].endswith("/live")
    assert found["readinessProbe"]["httpGet"]["path"].endswith("/live")
    # But a release that cannot reach it does not replace one that can.
    assert found["startupProbe"]["httpGet"]["path"].endswith("/ready")


def test_no_pod_goes_before_another_is_ready_and_none_goes_before_it_is_known_to() -> None:
    spec = deployment()
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    (python, flag, program) = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert (python, flag) == ("python", "-c")
    wait_s = int(program.partition("sleep(")[2].rstrip(")"))
    assert 0 < wait_s < spec["template"]["spec"]["terminationGracePeriodSeconds"] - 10, "10 s for what still runs"


def test_pods_are_spread_over_zones_and_nodes() -> None:
    found = deployment()
    constraints = found["template"]["spec"]["topologySpreadConstraints"]
    assert [c["topologyKey"] for c in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert all(c["labelSelector"] == found["selector"] for c in constraints)


def test_the_autoscaler_alone_says_how_many() -> None:
    """A replica count here would throw its number away at each upgrade."""
    assert "replicas" not in deployment("prod")
    assert deployment("dev")["replicas"] == 1


def test_keys_and_passwords_are_secrets() -> None:
    spec = deployment()["template"]["spec"]
    assert {"name": "api-keys", "secret": {"secretName": "streamforge-api-keys"}} in spec["volumes"]
    assert {"name": "store-config", "secret": {"secretName": "streamforge-redis"}} in spec["volumes"]
    mount = {"name": "store-config", "mountPath": "/etc/streamforge/store", "readOnly": True}
    assert mount in container()["volumeMounts"], "the whole folder: Kubernetes brings no single file up to date"
    assert "env" not in container()


def test_it_has_no_access_to_kubernetes() -> None:
    spec = deployment()["template"]["spec"]
    assert spec["serviceAccountName"] == "streamforge-api"
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("environment", "store"),
    [
        ("prod", {"url": ""}),
        ("prod", {"inCluster": {"enabled": True}}),
        ("dev", {"url": "redis://10.0.0.1:6379/0"}),
    ],
)
def test_a_store_is_needed_and_only_one(environment: str, store: dict[str, Any]) -> None:
    why = "redis: one of url and inCluster.enabled is needed, and only one"
    assert why in refusal(environment, {"redis": store})
