"""The commands that documents show run: here where they need no service, else in a live test, or by hand."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.test_documents import COMMANDS, ROOT, help_of, shown, text_of


def called(module: str, words: str) -> tuple[str, str]:
    """A program, and its subcommand if it has some."""
    has_commands = module in {
        "bench",
        "cdc",
        "stack",
        *(f"beam_pipelines.{m}" for m in ("dead_letters", "mapping", "rules", "tables")),
    }
    return module, words.split()[0] if has_commands and words else ""


# How each program that needs a service is run by a test: its subcommand → the test, and words with which that runs it.
LIVE = {
    "beam_pipelines.archive": {"": ("beam_pipelines/test_archive_live.py", "beam_pipelines.archive")},
    "beam_pipelines.backtest": {"": ("beam_pipelines/test_backtest.py", "backtest.main(")},
    "beam_pipelines.cdc": {"": ("beam_pipelines/test_cdc_live.py", "beam_pipelines.cdc")},
    "beam_pipelines.dead_letters": {
        **{name: ("beam_pipelines/test_dead_letters.py", f'"{name}"') for name in ("inspect", "replay", "discard")},
        "export": ("beam_pipelines/test_replay_live.py", '"export"'),
    },
    "beam_pipelines.fraud": {"": ("beam_pipelines/test_fraud_live.py", "beam_pipelines.fraud")},
    "beam_pipelines.mapping": {
        name: ("beam_pipelines/test_mapping_command.py", f'"{name}"') for name in ("suggest", "try")
    },
    "beam_pipelines.rebuild": {"": ("beam_pipelines/test_rebuild.py", "rebuild.main(")},
    "beam_pipelines.revenue": {"": ("beam_pipelines/test_revenue_live.py", "beam_pipelines.revenue")},
    "beam_pipelines.rules": {
        name: ("beam_pipelines/test_rules.py", f'"{name}"')
        for name in ("put", "list", "show", "diff", "activate", "rollback")
    },
    "beam_pipelines.sessions": {"": ("beam_pipelines/test_sessions_live.py", "beam_pipelines.sessions")},
    "beam_pipelines.tables": {
        "create": ("beam_pipelines/test_bigquery.py", '"create"'),
        "alter": ("transforms/io/test_bigquery.py", "alter_tables("),  # the emulator has no address to give as a flag
    },
    "beam_pipelines.worker_pool": {"": ("live.py", "beam_pipelines.worker_pool")},
    "bench": {
        "decode": ("bench/test_bench_decode.py", '"decode"'),
        "latency": ("bench/test_bench_latency.py", '"latency"'),
        "throughput": ("bench/test_bench_throughput.py", '"throughput"'),
    },
    "cdc": {
        **{name: ("cdc/test_capture.py", f'"{name}"') for name in ("register", "snapshot", "status", "slots")},
        "setup": ("cdc/capture.py", '"setup"'),
    },
    "cdc.workload": {"": ("test_demo.py", '"workload"')},
    "serving": {"": ("server.py", '"serving"')},
    "simulation": {"": ("simulation/test_simulation.py", '"simulation"')},
    "stack": {
        **{name: ("stack/test_main.py", f'"{name}"') for name in ("up", "down", "status", "logs")},
        "fetch": ("../Makefile", "-m stack fetch"),  # `make setup`
        "doctor": ("stack/test_doctor.py", '"doctor"'),
    },
    "stack.demo": {"": ("test_demo.py", '"stack.demo"')},
}
BY_HAND = {("bench", "jobs"), ("bench", "cdc"), ("bench", "serving")}  # minutes each, for docs/performance.md

# In the order of the pages: a command may need what one before it wrote. In capitals: what the reader fills in.
HERE = [
    (module, words)
    for module, words in dict.fromkeys((module, words) for _, module, words in shown())
    if module in {"serving.keys", "dags.spark.package", "bench.peers.plain_python"}
    or (module == "beam_pipelines.templates" and words.startswith("specs"))
    or (module, words) in {("beam_pipelines.tables", "show"), ("stack", "access")}
    or (module == "stack" and words.startswith("topics"))
    or (module in {"simulator", "beam_pipelines.fraud"} and "/tmp/" in words)
]


def test_every_command_that_a_page_shows_is_run_by_a_test_or_by_hand() -> None:
    here = {called(module, words) for module, words in HERE}
    for page, module, words in COMMANDS:
        for name in called(module, words)[1].split("|"):
            assert name == "" or name in help_of(module), page
            if (module, name) in here | BY_HAND or not words:
                continue
            file, run_as = LIVE[module][name]
            assert run_as in text_of(f"tests/{file}"), (page, module, name)


def test_commands_that_need_no_service_run_as_they_stand(tmp_path: Path) -> None:
    filled = {
        "/tmp/": f"{tmp_path}/",
        "gs://PROJECT-streamforge-templates": str(tmp_path),
        "PREFIX": "host/shop/images",
    }
    assert len(HERE) >= 8
    for module, words in HERE:
        for word, value in filled.items():
            words = words.replace(word, value)
        command = [sys.executable, "-m", module, *shlex.split(words)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"python -m {module} {words}: {done.stderr}"
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["in"] == sum(ledger[each] for each in ("good", "dead_letters", "late", "duplicates")) > 0
