"""Starts bqemulator, in the environment that `tests.bigquery_emulator` makes for it; it has nothing of ours.

The emulator fetches a DuckDB extension for GEOGRAPHY when it starts. No table of ours has such a column.
"""

import sys

from bqemulator.cli import main
from bqemulator.storage.engine import DuckDBEngine

DuckDBEngine._load_spatial = lambda _: None
sys.exit(main())
