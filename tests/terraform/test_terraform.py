"""Terraform itself: every module is formatted and valid, its tests pass, and planted faults are refused.

With the provider's schema alone these prove names, types and required arguments, expressions, wiring and validations.
What the provider checks by code, and what Google answers, they do not: docs/terraform.md.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.terraform.configuration import ROOTS
from tests.terraform.offline import TERRAFORM, Copy
from tests.terraform.provider_schema import PROVIDER_VERSION

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

FOLDERS = sorted(str(path.parent.relative_to(TERRAFORM)) for path in TERRAFORM.rglob("versions.tf"))
TESTED = sorted({str(path.parents[1].relative_to(TERRAFORM)) for path in TERRAFORM.rglob("*.tftest.hcl")})


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("terraform"))


def test_it_is_formatted(copy: Copy) -> None:
    done = copy.run(".", "fmt", "-check", "-recursive", "-no-color")
    assert done.ok, done.text


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_is_valid(copy: Copy, folder: str) -> None:
    assert (started := copy.init(folder)).ok, started.text
    done = copy.run(folder, "validate", "-no-color")
    assert done.ok, done.text
    assert "Warning" not in done.text


@pytest.mark.skipif(os.environ.get("STREAMFORGE_TERRAFORM_REGISTRY") == "1", reason="it is the registry's provider")
@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
def test_a_root_takes_no_other_provider_than_the_one_that_it_locks(tmp_path: Path, root: Path) -> None:
    copy, folder = Copy(tmp_path), str(root.relative_to(TERRAFORM))
    shutil.copy(root / ".terraform.lock.hcl", copy.root / folder)
    refused = copy.init(folder)  # the tests' own, of the same version
    assert not refused.ok
    assert f"package for registry.terraform.io/hashicorp/google {PROVIDER_VERSION}" in " ".join(refused.text.split())
    assert "doesn't match any of the checksums" in " ".join(refused.text.replace("│", "").split())


def test_every_environment_and_most_modules_have_tests_of_their_own() -> None:
    assert {f"environments/{name}" for name in ("dev", "staging", "prod")} <= set(TESTED)
    without = {folder for folder in FOLDERS if folder not in TESTED}
    assert without == {f"modules/{name}" for name in ("batch", "services")}, "see test_environments.py"


@pytest.mark.parametrize("folder", TESTED)
def test_its_tests_pass(copy: Copy, folder: str) -> None:
    assert (started := copy.init(folder)).ok, started.text
    done = copy.run(folder, "test", "-no-color")
    assert done.ok, done.text
    assert "0 failed" in done.text


REDIS, STORAGE, GKE = "modules/redis/main.tf", "modules/storage/main.tf", "modules/gke/main.tf"
PLATFORM, PROD = "modules/platform/main.tf", "environments/prod/main.tf"
PLANTED = [
    (REDIS, "auth_enabled  ", "auth_enable  ", 'An argument named "auth_enable" is not expected here'),
    (REDIS, "  memory_size_gb     = var.memory_gb\n", "", 'The argument "memory_size_gb" is required'),
    (REDIS, "= var.memory_gb", "= [var.memory_gb]", "number required"),
    (STORAGE, "  versioning {", "  version {", 'Blocks of type "version" are not expected here'),
    (
        STORAGE,
        "  soft_delete_policy {",
        "  soft_delete_policy {\n    days = 7",
        'argument named "days" is not expected',
    ),
    (GKE, "  release_channel {", "  release_channel {}\n  release_channel {", "Too many release_channel blocks"),
    (GKE, '"google_container_cluster" "this"', '"google_gke_cluster" "this"', 'not support resource type "google_gke'),
    ("modules/gke/outputs.tf", "this.project", "this.project_id", "Unsupported attribute"),
    (PLATFORM, "module.storage.buckets", "module.storage.bucket", "Unsupported attribute"),
    (PLATFORM, "  tier       = var.redis.tier\n", "", 'The argument "tier" is required'),
    (PROD, "memory_gb = 5", "memory = 5", 'attribute "memory_gb" is required'),
    (PROD, "deletion_protection = true", "deletion_protection = false", "must be true in prod"),
    (PROD, '"STANDARD_HA"', '"BASIC"', "must be STANDARD_HA in prod"),
]


@pytest.mark.parametrize(("path", "old", "new", "message"), PLANTED, ids=[message for *_, message in PLANTED])
def test_a_planted_fault_is_refused(tmp_path: Path, path: str, old: str, new: str, message: str) -> None:
    copy = Copy(tmp_path)
    copy.replace(path, old, new)
    folder = "environments/prod"
    assert (started := copy.init(folder)).ok, started.text
    done = copy.run(folder, "test", "-no-color")
    assert not done.ok
    assert message in " ".join(done.text.split()), done.text


def test_a_planted_value_fails_a_modules_tests(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    copy.replace(
        "modules/storage/variables.tf",
        "checkpoints         = optional(number, 7)",
        "checkpoints         = optional(number, 8)",
    )
    assert copy.init("modules/storage").ok
    done = copy.run("modules/storage", "test", "-no-color")
    assert not done.ok
    assert "Checkpoints are deleted after 7 days" in done.text


def test_a_file_that_is_not_formatted_is_found(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    copy.replace("modules/redis/main.tf", "  project            =", "  project =")
    assert "main.tf" in copy.run(".", "fmt", "-check", "-recursive", "-no-color").text


@pytest.mark.parametrize("module", ["kafka", "redis"])
def test_a_guard_lets_nobody_destroy_what_google_would(tmp_path: Path, module: str) -> None:
    copy = Copy(tmp_path)
    other = {"kafka": "redis", "redis": "kafka"}[module]
    copy.replace(f"modules/{other}/guard.tf", "prevent_destroy      = true", "prevent_destroy      = false")
    copy.replace("environments/prod/tests/prod.tftest.hcl", "command = plan #", "command = apply #")
    assert copy.init("environments/prod").ok
    done = copy.run("environments/prod", "test", "-no-color")  # destroys at its end what it made
    assert not done.ok
    place = {"kafka": "kafka", "redis": "redis[0]"}[module]
    assert f"module.platform.module.{place}.terraform_data.guard[0] has lifecycle.prevent_destroy set" in " ".join(
        done.text.split()
    )
