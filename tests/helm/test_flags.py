"""Every flag of the programs that the chart starts can be set by its values.

Without helm, so that `make test` sees what a new flag breaks. The tests of the rendered chart see the rest.
"""

from __future__ import annotations

import json
import re

import pytest

from beam_pipelines import options
from schemas.jobs import JOBS
from serving.__main__ import _parser
from tests.helm.chart import CHART

# Flags of the jobs that values cannot set, and why not.
FROM_ELSEWHERE = {
    *("input", "output", "dead_letters", "late", "registry"),  # made of kafka, redis, bigquery, storage, registry
    "store_prefix",  # redis.prefix, which the API has, too
    "group_prefix",  # of kafka.prefix
    *("rules", "hash_key"),  # files, made of values of their own
    *("kafka_config", "registry_config", "store_config"),  # of kafka, registry, redis: configSecret
    *("ledger", "until"),  # for input with an end
    *("kafka_read", "expansion_service"),  # Beam's Java source needs a second service; ours has no need of it
}


def snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


@pytest.mark.parametrize("module", JOBS)
def test_every_flag_of_a_job_is_a_value_or_is_made_of_others(module: str) -> None:
    given, _, _ = options.parse(JOBS[module], [])
    schema = json.loads((CHART / "values.schema.json").read_text())
    flags = schema["properties"]["jobs"]["properties"][module]["properties"]["flags"]
    settable = schema["$defs"]["flags"]["properties"] | flags.get("properties", {})
    assert {snake(name) for name in settable} >= vars(given).keys() - FROM_ELSEWHERE


def test_every_flag_of_the_api_is_given() -> None:
    template = (CHART / "templates" / "api-deployment.yaml").read_text()
    given = {*re.findall(r"- --(\w+)", template)} | {*re.findall(r"--(\w+)=", template)}
    given |= {"kafka_config", "registry_config", "store_config"}  # by connectionFlags
    assert given == vars(_parser().parse_args([])).keys()
