"""Files by Hadoop's clients, so that a folder and `gs://…` are the same."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

__all__ = ["exists", "match", "write_text"]


def match(spark: SparkSession, pattern: str) -> list[str]:
    """The paths that a glob names, sorted."""
    system, path = _open(spark, pattern)
    return sorted(found.getPath().toString() for found in system.globStatus(path) or ())


def exists(spark: SparkSession, path: str) -> bool:
    system, at = _open(spark, path)
    return bool(system.exists(at))


def write_text(spark: SparkSession, path: str, text: str) -> None:
    """Writes a file whole, in place of one that is there; makes its folder."""
    system, at = _open(spark, path)
    out = system.create(at, True)
    try:
        out.write(bytearray(text.encode()))
    finally:
        out.close()


def _open(spark: SparkSession, path: str) -> tuple[Any, Any]:
    at = spark._jvm.org.apache.hadoop.fs.Path(path)
    return at.getFileSystem(spark._jsc.hadoopConfiguration()), at
