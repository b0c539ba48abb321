"""python -m tests.licences: the licences of what is shipped, and whether each is one that we may ship.

What is shipped: `requirements.txt` and what the images install. A package's licence is what its installed metadata say;
one that a package was not installed for (another platform's, another Python's) is counted and not judged.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

__all__ = ["ALLOWED", "judged", "licence_of", "shipped"]

ROOT = Path(__file__).parents[1]
_ASKS_FOR_NOTICE = "asks for its notice, which is in the package"
ALLOWED = {
    **dict.fromkeys(["Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib"], _ASKS_FOR_NOTICE),
    **dict.fromkeys(["PSF-2.0", "CNRI-Python", "MIT-CMU"], f"Python's own or MIT in other words; {_ASKS_FOR_NOTICE}"),
    **dict.fromkeys(["0BSD", "MIT-0", "CC0-1.0"], "asks for nothing"),
    "MPL-2.0": "asks for the source of its own files when they are changed; they are installed as they come",
    "LGPL-3.0-only": "psycopg: imported, replaceable and unchanged, which is all that it asks",
}
"""Licence → why it may be shipped. Whoever adds one has read it."""

# What metadata say that are older than SPDX expressions.
_SPDX = {
    "Apache-2.0": r"apache",
    "MPL-2.0": r"mozilla|mpl",
    "LGPL-3.0-only": r"lgplv3|lgpl-3|lesser general",
    "GPL-3.0-only": r"gpl|general public",
    "PSF-2.0": r"psf|python software",
    "BSD-2-Clause": r"bsd.?2",
    "BSD-3-Clause": r"bsd",
    "MIT": r"^mit\b|\bmit license",
    "ISC": r"\bisc",
}


def shipped(files: Iterable[Path] | None = None) -> list[str]:
    """The names of the packages."""
    files = files or [ROOT / "requirements.txt", *(ROOT / "docker" / "requirements").glob("*.txt")]
    return sorted({name for file in files for name in re.findall(r"(?m)^([\w.-]+)==", file.read_text())})


def licence_of(told: metadata.PackageMetadata | Mapping[str, str]) -> str:
    """An SPDX expression; "unknown" when the metadata say nothing that is known."""
    if expression := told.get("License-Expression"):
        return str(expression)
    get_all = getattr(told, "get_all", lambda name, default: [told[name]] if name in told else default)
    classified = [c.split(" :: ")[-1] for c in get_all("Classifier", []) if c.startswith("License :: ")]
    said = [*classified, str(told.get("License") or "").partition("\n")[0]]
    found = [next((spdx for spdx, words in _SPDX.items() if re.search(words, text, re.I)), None) for text in said]
    return " AND ".join(dict.fromkeys(spdx for spdx in found if spdx)) or "unknown"


def judged(expression: str) -> bool:
    """Whether it may be shipped: every part of an AND, one part of an OR."""
    inner = re.sub(r"\(([^()]*)\)", lambda found: "ISC" if judged(found[1]) else "no", expression)
    return any(all(part.strip() in ALLOWED for part in each.split(" AND ")) for each in inner.split(" OR "))


def main() -> int:
    names, by_licence, elsewhere = shipped(), defaultdict(list), 0
    for name in names:
        try:
            by_licence[licence_of(metadata.metadata(name))].append(name)
        except metadata.PackageNotFoundError:
            elsewhere += 1
    if "--list" in sys.argv:
        for licence, of in sorted(by_licence.items()):
            print(f"{licence}: {', '.join(of)}")
    wrong = {licence: of for licence, of in by_licence.items() if not judged(licence)}
    for licence, of in wrong.items():
        print(f"{', '.join(of)}: {licence} is not one that tests/licences.py allows", file=sys.stderr)
    print(f"licences: {len(names)} packages, {len(by_licence)} licences, {elsewhere} packages not for this machine")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
