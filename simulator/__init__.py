"""Realistic shop traffic with planted fraud, poison, late records and duplicates; `python -m simulator --help`."""
