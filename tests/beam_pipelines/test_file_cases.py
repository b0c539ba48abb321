"""tests/cases/files.yaml, played through the fraud job: small inputs that were reported of other systems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tests
from beam_pipelines.fraud import main
from tests.beam_pipelines.test_fraud import rows

FOLDER = Path(tests.__file__).parent / "cases"
CASES: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "files.yaml").read_text())


@pytest.mark.parametrize("name", CASES)
def test_a_file_gives_what_its_case_says(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    flags = [f"--input={FOLDER / name}", f"--output={tmp_path / 'out'}", f"--ledger={tmp_path / 'ledger.json'}"]
    if "refused" in case:
        with pytest.raises(SystemExit) as ended:
            main([*flags, "--runner=DirectRunner"])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert case["refused"] in line
        assert name in line
        return
    main([*flags, "--runner=DirectRunner"])
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert [ledger[key] for key in ("in", "good", "dead_letters")] == case["ledger"]
    assert ledger["in"] == ledger["good"] + ledger["dead_letters"] + ledger["late"] + ledger["duplicates"]
    letters = rows(tmp_path / "out" / "dead_letters")
    assert len(letters) == ledger["dead_letters"]
    assert all(case.get("reason", "") in letter["error_message"] for letter in letters)


def test_no_file_is_without_a_case() -> None:
    files = {path.name for path in FOLDER.iterdir() if path.suffix == ".avro"}
    assert files == {name for name in CASES if name.endswith(".avro")}
    assert all((FOLDER / name).exists() and case["story"] for name, case in CASES.items())
