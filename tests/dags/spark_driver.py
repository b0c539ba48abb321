"""Runs in Spark's environment, for test_daily_analytics.py: one Spark session, and what it is asked to do on stdin.

A request is a line of JSON: {"argv": […]} runs the job with these flags, {"sql": "…"} a query in the same session. The
answer is a line of JSON: {"status", "out", "err"}, or {"rows"} as text.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback

from pyspark.sql import SparkSession

from dags.spark.daily_analytics import main


def run(argv: list[str]) -> dict[str, object]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(argv)
        except SystemExit as end:
            status = end.code
        except Exception:  # noqa: BLE001 - whatever ends the job is an answer
            traceback.print_exc()
            status = 1
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def query(sql: str) -> dict[str, object]:
    session = SparkSession.getActiveSession()
    assert session is not None, "the job has not run yet"
    return {"rows": [row.asDict() for row in session.sql(sql).collect()]}


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        answer = run(request["argv"]) if "argv" in request else query(request["sql"])
        print(json.dumps(answer, default=str), flush=True)
