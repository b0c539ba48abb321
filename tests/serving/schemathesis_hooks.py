"""What no schema can say: a cursor is one that the server gave, and `since` is not later than `until`."""

import schemathesis

from serving.query import cursor_text
from serving.store import Position


@schemathesis.hook
def map_case(context, case):
    meta = case.meta
    if case.query and not (meta and meta.generation.mode.is_negative):
        if "cursor" in case.query:
            case.query["cursor"] = cursor_text(Position(1_790_000_000_007, f"a-{len(str(case.query['cursor']))}"))
        if {"since", "until"} <= set(case.query):
            case.query["since"] = case.query["until"]
    return case
