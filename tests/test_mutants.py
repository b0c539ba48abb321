"""The faults that `make mutants` plants can all be planted, and what they leave is Python."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.faults import ROOT, Fault, faults


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.what)
def test_a_fault_can_be_planted(fault: Fault) -> None:
    text = (ROOT / fault.file).read_text(encoding="utf-8")
    planted = fault.planted_in(text)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(text))
    assert fault.tests or fault.argued
    for test in fault.tests:
        assert (ROOT / test).exists(), test


def test_no_fault_is_there_twice_and_there_are_enough() -> None:
    assert len({(fault.file, fault.old, fault.new) for fault in faults()}) == len(faults()) >= 60
    assert len({fault.what for fault in faults()}) == len(faults())
