"""The API's Deployment: every flag is one that the server takes, and it is replaced without a gap."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import serving
import serving.ingest.door
from serving.__main__ import _parser
from tests.helm.chart import ENVIRONMENTS, refusal, render, told
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
    values = {"api": {"events": EVENTS}}
    found = parsed(container(values=values)["args"], tmp_path)
    told_ = told("prod")
    assert (found.events, found.event_rate) == (f"kafka://{told_['kafka']['servers']}", "9/second")
    assert str(found.registry) == told_["registry"]["url"]
    assert found.mapping == ["shopify"]
    serving.ingest.door.check_events(
        serving.Config(events=found.events, api_keys=found.api_keys, mappings=("shopify",), webhooks=found.webhooks),
        found.host,
    )
    spec = deployment(values=values)["template"]["spec"]
    assert {"name": "webhooks", "secret": {"secretName": "shop-webhooks"}} in spec["volumes"]
    assert parsed(container()["args"], tmp_path).events is None


def test_events_without_keys_are_refused() -> None:
    assert "api.keysSecret is needed" in refusal("dev", {"api": {"events": {"enabled": True}}})


def test_every_flag_of_the_server_is_given_or_can_be(tmp_path: Path) -> None:
    everything = {
