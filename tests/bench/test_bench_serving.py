import pytest

from bench import __main__ as command
from bench import serving

TOLD = """Running 1s test @ http://127.0.0.1:9101
  1 threads and 32 connections
  Latency Distribution
     50%  850.00us
     99%    1.20s
  4000 requests in 1.00s, 1.00MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 5
Requests/sec:   3999.50
"""


def test_figures_are_what_wrk_told():
    figures = serving._figures(TOLD, cpu_s=0.4)
    assert (figures.rate, figures.p50_ms, figures.p99_ms, figures.failures) == (3999.5, 0.85, 1200.0, 8)
    assert figures.cpu_us == pytest.approx(100)


def test_a_machine_without_wrk_is_told_so_in_one_line_and_status_2(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main(["serving"]) == 2
    told = capsys.readouterr().err
    assert "wrk not found: install wrk" in told
    assert told.count("\n") == 1
