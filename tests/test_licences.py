"""Which licences may be shipped, by what packages say of themselves."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from tests.licences import judged, licence_of, main, shipped


def test_all_that_is_shipped_has_a_licence_that_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().err
    assert len(shipped()) > 100
    assert {"psycopg", "apache-beam", "flask"} <= {*shipped()}


@pytest.mark.parametrize(
    ("told", "licence", "may"),
    [
        ({"License-Expression": "MPL-2.0 AND (Apache-2.0 OR GPL-3.0-only)"}, "", True),
        ({"License-Expression": "MIT OR GPL-3.0-only"}, "", True),
        ({"License-Expression": "MIT AND GPL-3.0-only"}, "", False),
        ({"License": "BSD"}, "BSD-3-Clause", True),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}, "GPL-3.0-only", False),
        ({"Classifier": "License :: OSI Approved :: GNU Lesser General Public License v3"}, "LGPL-3.0-only", True),
        ({"License": "GNU AFFERO GPL", "Classifier": "License :: OSI Approved"}, "GPL-3.0-only", False),
        ({"License": "SSPL"}, "unknown", False),
        ({}, "unknown", False),
    ],
)
def test_a_licence_is_found_and_judged(told: dict[str, str], licence: str, may: bool) -> None:
    found = licence_of(told)
    assert found == (licence or told["License-Expression"])
    assert judged(found) is may


def test_a_package_that_may_not_be_shipped_ends_the_command_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = metadata.PathDistribution(tmp_path)
    (tmp_path / "METADATA").write_text("Metadata-Version: 2.4\nName: taken\nLicense-Expression: AGPL-3.0-only\n")
    monkeypatch.setattr(metadata, "metadata", lambda _: made.metadata)
    monkeypatch.setattr("tests.licences.shipped", lambda: ["taken"])
    assert main() == 1
    assert "taken: AGPL-3.0-only is not one that tests/licences.py allows" in capsys.readouterr().err
