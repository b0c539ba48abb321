"""The configuration as it is written: complete, described, without keys, and the same as the code it is for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.terraform.configuration import (
    ENVIRONMENTS,
    MODULES,
    ROOTS,
    TERRAFORM,
    blocks,
    parsed,
    read,
    resources,
    resources_of,
)
from tests.terraform.grants import forbidden
from tests.terraform.provider_schema import PROVIDER_VERSION

FOLDERS = [*MODULES, *ROOTS]
GUIDE = TERRAFORM.parent / "docs" / "terraform.md"


def name_of(folder: Path) -> str:
    return str(folder.relative_to(TERRAFORM))


# Whole


def test_there_are_the_modules_and_environments_that_the_guide_names() -> None:
    assert [path.name for path in ENVIRONMENTS] == ["dev", "prod", "staging"]
    guide = GUIDE.read_text()
    for module in MODULES:
        assert f"`{module.name}`" in guide, f"docs/terraform.md says nothing of {module.name}"


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_module_has_its_four_files(folder: Path) -> None:
    for name in ("main.tf", "variables.tf", "outputs.tf", "versions.tf"):
        assert (folder / name).read_text().strip(), f"{name_of(folder)}/{name}"


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_every_variable_is_described_and_typed_and_every_output_described(folder: Path) -> None:
    for kind, needed in (("variable", ("description", "type")), ("output", ("description", "value"))):
        for name, body in blocks(folder, kind).items():
            assert set(needed) <= body.keys(), f"{kind} {name}"
            assert body["description"].endswith((".", "…")), f"{kind} {name}: {body['description']}"


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_terraform_and_provider_have_the_version_that_the_tests_know(folder: Path) -> None:
    (terraform,) = next(file["terraform"] for path, file in read(folder) if path.name == "versions.tf")
    assert terraform["required_version"] == ">= 1.9"
    assert terraform["required_providers"] == [{"google": {"source": "hashicorp/google", "version": "~> 6.50"}}]


@pytest.mark.parametrize("folder", ROOTS, ids=name_of)
def test_a_root_locks_the_provider_that_it_asks_for_by_version_and_by_hash_for_every_platform(folder: Path) -> None:
    locked = {
        name: body
        for block in parsed((folder / ".terraform.lock.hcl").read_text())["provider"]
        for name, body in block.items()
    }
    wanted = {
        (f"registry.terraform.io/{each['source']}", each["version"])
        for module in FOLDERS
        for _, file in read(module)
        for terraform in file.get("terraform", [])
        for providers in terraform["required_providers"]
        for each in providers.values()
    }
    assert {(name, body["constraints"]) for name, body in locked.items()} == wanted
    (google,) = locked.values()
    assert google["version"] == PROVIDER_VERSION, "another than the one whose schema the tests know"
    # The registry's list of the release: of eleven zips, and of its manifest.
    packages = [found for found in google["hashes"] if re.fullmatch("zh:[0-9a-f]{64}", found)]
    assert len(set(packages)) == 12
    assert google["hashes"] == sorted(google["hashes"])


@pytest.mark.parametrize("folder", ENVIRONMENTS, ids=name_of)
def test_an_environment_keeps_its_state_remotely_and_apart_from_the_others(folder: Path) -> None:
    (terraform,) = next(file["terraform"] for path, file in read(folder) if path.name == "versions.tf")
    assert terraform["backend"] == [{"gcs": {"prefix": f"streamforge/{folder.name}"}}]
    assert blocks(folder, "module")["platform"]["environment"] == folder.name


def test_every_variable_of_a_module_is_used_there() -> None:
    for folder in FOLDERS:
        text = "".join(file.read_text() for file in folder.glob("*.tf"))
        for name in blocks(folder, "variable"):
            used = re.sub(rf'variable "{name}" {{.*?^}}', "", text, flags=re.DOTALL | re.MULTILINE)
            assert f"var.{name}" in used, f"{name_of(folder)}: {name}"


def test_services_are_turned_on_for_every_kind_of_resource() -> None:
    of_prefix = {
        "artifact": "artifactregistry",
        "bigquery": "bigquery",
        "billing": "billingbudgets",
        "compute": "compute",
        "container": "container",
        "iam_workload": "iam",
        "managed": "managedkafka",
        "monitoring": "monitoring",
        "project": "cloudresourcemanager",
        "redis": "redis",
        "secret": "secretmanager",
        "service_account": "iam",
        "service_networking": "servicenetworking",
        "storage": "storage",
    }
    on = _all_locals("services")["services"]
    for resource in resources(*MODULES):
        if resource.type.startswith("google_"):
            kind = resource.type.removeprefix("google_")
            prefix = max((p for p in of_prefix if kind.startswith(p)), key=len)
            assert f"{of_prefix[prefix]}.googleapis.com" in on, resource.type


def test_the_guides_example_of_variables_is_one() -> None:
    example = re.search(r"((?:^       \w+ += .*\n)+)", GUIDE.read_text(), re.MULTILINE)
    assert example
    given = parsed(example[1])
    variables = blocks(TERRAFORM / "environments" / "prod", "variable")
    assert given.keys() <= variables.keys()
    assert {name for name, body in variables.items() if "default" not in body} <= given.keys()


def test_flink_writes_its_checkpoints_anew_before_the_bucket_deletes_their_files() -> None:
    """An incremental checkpoint refers to files of earlier ones, which grow old while they are needed."""
    chart = yaml.safe_load((TERRAFORM.parent / "helm" / "streamforge" / "values.yaml").read_text())
    hours = re.fullmatch(r"(\d+)h", chart["flink"]["fullCheckpointInterval"])
    assert hours
    assert 0 < int(hours[1]) * 2 <= _retention_days()["checkpoints"] * 24, "one that failed must do no harm"


def test_the_chart_writes_where_the_buckets_rules_look() -> None:
    template = (TERRAFORM.parent / "helm" / "streamforge" / "templates" / "_jobs.tpl").read_text()
    for folder in ("checkpoints", "savepoints"):
        assert f"state.{folder}.dir: {{{{ $state }}}}/{folder}/" in template
    chart = yaml.safe_load((TERRAFORM.parent / "helm" / "streamforge" / "values.yaml").read_text())
    assert chart["storage"] == {
        "state": "gs://my-project-streamforge-state",
        "archive": "gs://my-project-streamforge-archive/archive",
    }
    of_batch = _all_locals("batch")
    assert of_batch["daily_analytics"]["archive"] == "${local.archive}"
    assert of_batch["archive"] == 'gs://${var.buckets["archive"]}/archive'


# Who may do what


def test_nothing_is_granted_that_nobody_should_have() -> None:
    found = resources(*FOLDERS)
    assert len(found) > 30
    elsewhere = [value for folder in FOLDERS for _, file in read(folder) for value in file.get("locals", [])]
    defaults = [body.get("default") for folder in FOLDERS for body in blocks(folder, "variable").values()]
    assert forbidden(found, [*elsewhere, *defaults]) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('resource "google_service_account_key" "k" { service_account_id = "x" }', "a key that lives for years"),
        ('resource "google_storage_hmac_key" "k" { service_account_email = "x" }', "a key that lives for years"),
        ('resource "google_project_iam_member" "m" { role = "roles/owner" }', "basic roles"),
        ('resource "google_project_iam_member" "m" { role = var.x ? "roles/editor" : "roles/x.user" }', "basic roles"),
        ('resource "google_project_iam_member" "m" { role = "roles/storage.admin" }', "may change who"),
        ('resource "google_project_iam_member" "m" { role = "roles/iam.securityAdmin" }', "may change who"),
        ('resource "google_storage_bucket_iam_member" "m" { member = "allUsers" }', "everybody"),
        ('resource "google_project_iam_binding" "m" { role = "roles/bigquery.jobUser" }', "takes away"),
        ('resource "google_storage_bucket_iam_policy" "m" { policy_data = "{}" }', "takes away"),
        ('resource "google_secret_manager_secret_version" "s" {secret_data = "BEGIN PRIVATE KEY" }', "a secret"),
    ],
)  # fmt: skip
def test_a_planted_grant_is_found(text: str, why: str) -> None:
    planted = list(resources_of(parsed(text), Path("planted.tf")))
    assert len(planted) == 1
    assert any(why in line for line in forbidden(planted))


def test_a_planted_role_in_a_table_of_roles_is_found() -> None:
    planted = parsed('locals {\n  roles = { jobs = ["roles/bigquery.jobUser", "roles/editor"] }\n}')["locals"]
    assert forbidden([], planted) == ["a local or a default: roles/editor is one of the basic roles"]


def test_every_exception_from_a_rule_has_its_reason() -> None:
    found = [
        line.strip()
        for folder in FOLDERS
        for file in folder.glob("*.tf")
        for line in file.read_text().splitlines()
        if "checkov:skip" in line
    ]
    assert found
    for line in found:
        assert re.fullmatch(r"#checkov:skip=CKV2?_GCP_\d+:.{30,}", line), line


# The same as the code


def test_files_are_deleted_or_moved_when_the_guide_says() -> None:
    found = {
        name: [(rule["days"], *rule["prefixes"], *rule["suffixes"], rule["delete"]) for rule in bucket["rules"]]
        for name, bucket in _all_locals("storage")["buckets"].items()
    }
    days_of = {f"${{var.retention_days.{name}}}": number for name, number in _retention_days().items()}
    assert {name: [(days_of[d], *rest) for d, *rest in rules] for name, rules in found.items()} == {
        "state": [(7, "checkpoints/", True), (90, "savepoints/", True)],
        "archive": [(30, "dead-letters/", True)],
        "lakehouse": [(30, ".parquet", False)],
        "templates": [],
        "scratch": [(14, "google-cloud-dataproc-metainfo/", "temp/", True)],
    }


def _retention_days() -> dict[str, int]:
    of_module, of_platform = (
        blocks(TERRAFORM / "modules" / module, "variable")["retention_days"]["type"]
        for module in ("storage", "platform")
    )
    assert of_module == of_platform
    return {name: int(number) for name, number in re.findall(r"(\w+) = optional\(number, (\d+)\)", of_module)}


def _all_locals(module: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _, file in read(TERRAFORM / "modules" / module):
        for block in file.get("locals", []):
            found |= block
    return found
