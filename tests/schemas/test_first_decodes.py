"""No type is decoded for the first time by threads: msgspec would end the process with a segmentation fault."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THREADED = ("cdc", "connections", "schemas", "serving", "transforms")
LEARNED = {"record"}  # of schemas.codec: OrderEvent or ClickstreamEvent, which schemas.events has made a decoder of
RACE = """
import sys, threading, msgspec
sys.setswitchinterval(1e-6)
names = [f"f{i}" for i in range(20)]
raw = msgspec.json.encode(dict.fromkeys(names, "a"))
for n in range(300):
    record = msgspec.defstruct(f"T{n}", [(name, str) for name in names])
    msgspec.json.Decoder(record)
    go = threading.Barrier(4)
    threads = [threading.Thread(target=lambda: (go.wait(), msgspec.json.decode(raw, type=record))) for _ in range(4)]
    [each.start() for each in threads], [each.join() for each in threads]
"""


def test_what_a_decoder_was_made_of_is_decoded_by_many_threads_at_once() -> None:
    subprocess.run([sys.executable, "-c", RACE], check=True, timeout=120)


def first_decodes(source: str) -> list[str]:
    """What functions decode without a decoder that was there before."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    types = [k.value for call in calls for k in call.keywords if k.arg == "type" and "decode" in ast.unparse(call.func)]
    return [name for name in map(ast.unparse, types) if name not in LEARNED and "msgspec.Raw" not in name]


@pytest.mark.parametrize("package", THREADED)
def test_types_are_decoded_by_decoders_of_their_module(package: str) -> None:
    found = {str(path.relative_to(ROOT)): first_decodes(path.read_text()) for path in (ROOT / package).rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_one_that_is_not_would_be_found() -> None:
    assert first_decodes("def f(row): return msgspec.json.decode(row, type=_Row).id") == ["_Row"]
