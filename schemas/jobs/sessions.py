"""Sessions: the job's declaration; its page is `beam_pipelines.sessions`."""

from __future__ import annotations

from typing import Final

from schemas.events import UserSession
from schemas.jobs.declaration import Flag, Job, Rows, State
from schemas.jobs.messages import FORMAT, MAPPING
from schemas.jobs.shop import CLICKS

JOB: Final = Job(
    module="sessions",
    name="session-aggregator",
    summary="Reads clicks and groups them into each user's sessions.",
    topics=(CLICKS,),
    tables=(
        Rows(
            "user_sessions",
            UserSession,
            key=("session_id",),
            day="session_start",
            cluster_by=("user_id", "session_id"),
            topic="analytics.sessions",
            topic_key=("user_id",),
            topic_time="session_end",
        ),
    ),
    reads="topic `clickstream.events`, or files",
    writes="sessions to Redis, topic `analytics.sessions`, BigQuery or a folder",
    flags=(
        FORMAT,
        MAPPING,
        Flag(
            "session_gap",
            "lasting",
            "a click this long after the previous one starts a new session; to change the gap, use another --output, "
            "because a session is identified by its start",
            default="30m",
        ),
        Flag(
            "max_session",
            "lasting",
            "split a session that never pauses at multiples of this duration since 1970: 12h splits at noon and "
            "midnight UTC",
            default="12h",
        ),
        Flag(
            "early_every",
            "lasting",
            "emit early results so that no click waits longer than this; ignored for bounded input",
            default="5s",
        ),
    ),
    state=(
        State(
            "each user's sessions, as sums of clicks",
            "a late click may extend one, or join two",
            spans=("session_gap", "allowed_lateness"),
            within="max_session",
        ),
        State("ids of clicks, by user", "a click that is delivered again must count once"),
    ),
)
