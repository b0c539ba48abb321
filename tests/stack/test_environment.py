"""Environments of their own: made once, and anew when their requirements change."""

import subprocess

import pytest

from stack.environment import python_of
from stack.errors import StackError


def test_an_environment_is_made_once_and_anew_when_its_requirements_change(tmp_path):
    requirements = tmp_path / "wanted.txt"
    requirements.write_text("# nothing\n")
    python = python_of(tmp_path / "tool", requirements)
    inside = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert inside.stdout.strip() == str(tmp_path / "tool" / "venv")
    mark = python.parent / "mark"
    mark.touch()
    assert python_of(tmp_path / "tool", requirements) == python
    assert mark.exists()
    requirements.write_text("# still nothing\n")
    python_of(tmp_path / "tool", requirements)
    assert not mark.exists()


def test_what_cannot_be_installed_is_said_and_tried_again_the_next_time(tmp_path):
    requirements = tmp_path / "wanted.txt"
    requirements.write_text(f"{tmp_path}/no-such-package\n")
    for _ in range(2):
        with pytest.raises(StackError, match=r"tool's environment could not be made: .*no-such-package"):
            python_of(tmp_path / "tool", requirements)
