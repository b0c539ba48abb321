"""Checkov finds nothing that has no reason beside it, and does find what is planted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from stack.environment import python_of
from tests.live import ROOT
from tests.terraform.offline import TERRAFORM, Copy

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

_REQUIREMENTS = ROOT / "tests" / "terraform" / "checkov.txt"
_HOME = ROOT / ".stack" / "tools" / "checkov"


def findings(folder: Path) -> set[tuple[str, str]]:
    """Checks that failed, with the name of what failed them."""
    checkov = python_of(_HOME, _REQUIREMENTS).parent / "checkov"
    command = [checkov, "--directory", folder, "--framework", "terraform", "--output", "json", "--skip-download"]
    done = subprocess.run([*command, "--soft-fail"], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 20, report["summary"]
    assert report["summary"]["parsing_errors"] == 0
    return {(check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]}


def test_it_finds_nothing_that_has_no_reason() -> None:
    assert findings(TERRAFORM) == set()


def test_it_finds_what_is_planted(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    copy.replace("modules/storage/main.tf", '"enforced"', '"inherited"')
    copy.replace("modules/storage/main.tf", "uniform_bucket_level_access = true", "uniform_bucket_level_access = false")
    copy.replace("modules/redis/main.tf", "auth_enabled            = true", "auth_enabled            = false")
    copy.replace("modules/gke/main.tf", "issue_client_certificate = false", "issue_client_certificate = true")
    found = {check for check, _ in findings(copy.root)}
    # Public bucket, rights per file, Redis without a password, a certificate that lives for years.
    assert {"CKV_GCP_114", "CKV_GCP_29", "CKV_GCP_95", "CKV_GCP_13"} <= found
