"""Formats side by side: the same orders, all of them good in each format."""

from bench.__main__ import main
from bench.decode import Row, measure, table


def test_each_format_is_measured_with_the_same_orders():
    rows = measure(events=300, repeat=2)
    assert [row.name for row in rows] == ["Avro", "JSON", "Segment by its mapping"]
    assert all(0 < row.decode_us < row.rows_us for row in rows)
    assert rows[0].size < rows[1].size


def test_the_table_compares_with_avro():
    lines = table([Row("Avro", 200, 1.0, 2.0), Row("JSON", 600, 2.0, 2.5)]).splitlines()
    assert lines[2].split() == ["JSON", "600", "2.00", "0.50", "2.50", "0.80"]


def test_the_command_prints_it(capsys):
    assert main(["decode", "--events", "50", "--repeat", "1"]) == 0
    assert "Segment" in capsys.readouterr().out
