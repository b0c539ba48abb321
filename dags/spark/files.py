"""Files by Hadoop's clients, so that a folder and `gs://…` are the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyspark.sql import SparkSession

__all__ = ["exists", "listed", "match", "read_text", "read_texts", "write_text"]


def match(spark: SparkSession, pattern: str) -> list[str]:
    """The paths that a glob names, sorted."""
    system, path = _open(spark, pattern)
    return sorted(found.getPath().toString() for found in system.globStatus(path) or ())


def exists(spark: SparkSession, path: str) -> bool:
    system, at = _open(spark, path)
    return bool(system.exists(at))


def listed(spark: SparkSession, pattern: str) -> list[tuple[str, int]]:
    """The paths that a glob names, and when each was written (ms); none when there is no such folder."""
    system, path = _open(spark, pattern)
    return [(found.getPath().toString(), found.getModificationTime()) for found in system.globStatus(path) or ()]


def read_texts(spark: SparkSession, paths: Sequence[str]) -> dict[str, str]:
    """Small files, whole, by path."""
    if not paths:
        return {}
    found = spark.read.option("wholetext", "true").text(list(paths)).selectExpr("_metadata.file_path", "value")
    by_name = {path.rpartition("/")[2]: path for path in paths}
    return {by_name[row[0].rpartition("/")[2]]: row[1] for row in found.collect()}


def read_text(spark: SparkSession, path: str) -> str | None:
    """None when there is no such file."""
    return next(iter(read_texts(spark, [path]).values())) if exists(spark, path) else None


def write_text(spark: SparkSession, path: str, text: str) -> None:
    """Writes a file in place of one that is there, so that a reader sees all of it or what was there before; makes its
    folder.

    An object of a store is there once it is closed, and never if it is not.
    """
    at = urlsplit(path)
    if at.scheme in ("", "file"):
        _replace(Path(at.path), text.encode())
        return
    system, place = _open(spark, path)
    out = system.create(place, True)
    out.write(bytearray(text.encode()))
    out.close()


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with hidden.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)


def _open(spark: SparkSession, path: str) -> tuple[Any, Any]:
    at = spark._jvm.org.apache.hadoop.fs.Path(path)
    return at.getFileSystem(spark._jsc.hadoopConfiguration()), at
