"""The reader of PromQL that the other tests rely on."""

from __future__ import annotations

import pytest

from tests.monitoring.watched import Asked, asked_for, unknown


def asked(metric: str, *labels: str) -> Asked:
    return Asked(metric, frozenset(labels))


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("up", {asked("up")}),
        ('up{job="a",instance!~"b{c}"} == 1', {asked("up", "job", "instance")}),
        ("sum by (le, job) (rate(x_bucket[5m]))", {asked("x_bucket")}),
        ("sum(rate(x_total[5m])) by (job) / on (job) group_left y", {asked("x_total"), asked("y")}),
        ("a:b offset 10m > 5e3 and on () c unless ignoring(d) e", {asked("a:b"), asked("c"), asked("e")}),
        ('label_replace(m, "pipeline", "$1", "job_name", "(.+)")', {asked("m", "job_name")}),
        (
            'label_replace(label_replace(m{o="in"}, "p", "$1", "job", "(.+)"), "p", "$1", "exported_job", "(.+)")',
            {asked("m", "o", "job")},
        ),
        ("time() - timestamp(x > min_over_time(x[2m]))", {asked("x")}),
        ('absent(x{slot="s"}) or vector(0)', {asked("x", "slot")}),
        ("histogram_quantile(0.99, sum by (le) (rate(h_bucket[1h:5m])))", {asked("h_bucket")}),
    ],
)
def test_metrics_and_labels_are_read_and_nothing_else_is(expression: str, found: set[Asked]) -> None:
    assert asked_for(expression) == found


def test_what_nobody_tells_is_named() -> None:
    emitted = {"x": {"job"}}
    assert unknown({"here": "x + r:x"}, {"r:x"}, emitted) == []
    assert unknown({"here": "x / y"}, set(), emitted) == ["here: nobody tells y"]
    assert unknown({"here": 'x{jbo="a"}'}, set(), emitted) == ["here: x has no label jbo"]
