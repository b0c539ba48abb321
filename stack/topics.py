"""The project's topics and their partitions, created by `stack up`."""

from schemas.jobs import JOBS, LETTER_TOPIC, topics
from schemas.jobs.shop import EVENTS_LETTERS, RULES, RULES_TOPIC

__all__ = ["TOPICS", "config"]

PARTITIONS = 4
_CONFIGS = topics(JOBS.values()) | {EVENTS_LETTERS: LETTER_TOPIC, RULES: RULES_TOPIC}
TOPICS: dict[str, int] = dict.fromkeys(_CONFIGS, PARTITIONS)


def config(name: str) -> dict[str, str]:
    """A topic's own settings; none for one that is not ours."""
    return _CONFIGS.get(name, {})
