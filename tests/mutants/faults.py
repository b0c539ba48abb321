"""The faults of `faults.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Fault(NamedTuple):
    """
    Attributes:
      what: it does wrong.
      file, old, new: where it is, and what is written there instead.
      tests: that should notice.
      argued: why none can; '' for most.
    """

    what: str
    file: str
    old: str
    new: str
    tests: list[str]
    argued: str = ""

    def planted_in(self, text: str) -> str:
        """Raises: ValueError: the text is not there, or more than once: the fault must be chosen anew."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has this {text.count(self.old)} times, not once: {self.old!r}")
        return text.replace(self.old, self.new)


def faults() -> list[Fault]:
    with (ROOT / "tests/mutants/faults.toml").open("rb") as toml:
        return [Fault(**each) for each in tomllib.load(toml)["fault"]]
