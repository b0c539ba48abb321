"""Who may do what in Kafka."""

from __future__ import annotations

from schemas.access import API, CONNECT, LETTERS_TOOL, RULES_TOOL, SIMULATOR, grants, principals
from schemas.jobs import JOBS, topics
from schemas.jobs.shop import CLICKS, EVENTS_LETTERS, ORDERS, RULES


def allowed(principal: str, operation: str) -> set[str]:
    return {
        g.name for g in grants() if g.principal == principal and g.resource == "TOPIC" and operation in g.operations
    }


def test_a_job_reads_its_topics_and_writes_its_results_and_nothing_else() -> None:
    for job in JOBS.values():
        rules = {RULES} if job is JOBS["fraud"] else set()
        assert allowed(job.name, "READ") == {*job.topics} | rules
        assert allowed(job.name, "WRITE") == {rows.topic for rows in job.tables if rows.topic} | set(job.letters)
        assert allowed(job.name, "CREATE") == set()


def test_people_change_rules_and_the_job_that_judges_by_them_does_not() -> None:
    assert [name for name in principals() if RULES in allowed(name, "WRITE")] == [RULES_TOOL]


def test_nothing_is_granted_twice() -> None:
    each = [(g.principal, g.resource, g.name, g.prefix, operation) for g in grants() for operation in g.operations]
    assert len(each) == len(set(each))


def test_every_topic_has_somebody_who_writes_it_and_every_grant_is_of_a_principal() -> None:
    assert set().union(*(allowed(name, "WRITE") for name in principals())) >= set(topics(JOBS.values()))
    assert {grant.principal for grant in grants()} == set(principals())


def test_nobody_reads_what_a_job_wrote_in_the_simulators_name() -> None:
    assert allowed(SIMULATOR, "READ") == set()
    assert allowed(API, "READ") == set()
    assert allowed(API, "WRITE") == {ORDERS, CLICKS, EVENTS_LETTERS}
    assert allowed(LETTERS_TOOL, "READ") >= {EVENTS_LETTERS}
    assert allowed(CONNECT, "WRITE").isdisjoint({job.topic for job in JOBS.values()})
