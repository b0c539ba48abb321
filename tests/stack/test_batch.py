"""The command that runs the batch job here, before it starts Spark."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack import batch


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--date=yesterday"], "--date: 'yesterday' is not a date such as 2026-11-22"),
        ([], "the following arguments are required: --date"),
        (
            ["--date=2026-11-22", "--data=/nowhere"],
            "--data: /nowhere has no archive: run make demo DURATION=60 first",
        ),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(flags: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        batch.main(flags)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"stack.batch: {why}")
    assert len(said.splitlines()) == 1


def test_the_catalogue_of_a_file_is_what_icebergs_jdbc_catalogue_takes() -> None:
    assert batch.catalog_settings(Path("/data/c.db")) == [
        "type=jdbc",
        "uri=jdbc:sqlite:/data/c.db",
        "jdbc.schema-version=V1",
    ]
