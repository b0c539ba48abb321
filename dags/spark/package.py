"""python -m dags.spark.package FILE.zip: packs our modules that the job imports, for spark-submit's --py-files.

The zip holds `schemas`, `transforms.domain` and `dags.spark`, and is the same, byte for byte, when they are. Beside it
the cluster needs msgspec and PyYAML (on Dataproc: the property `dataproc:pip.packages`).
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from dags.spark.judged import code_version, sources

__all__ = ["build", "main"]


def build(path: Path) -> None:
    """Raises: OSError: it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*sources(), ("dags/spark/version.txt", f"{code_version()}\n".encode())]:
            # A fixed time: an upload of the same sources changes nothing.
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1 or not argv[0].endswith(".zip"):
        print("usage: python -m dags.spark.package FILE.zip", file=sys.stderr)
        return 0 if argv in (["--help"], ["-h"]) else 2
    build(Path(argv[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
