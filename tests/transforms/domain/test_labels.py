from __future__ import annotations

import pytest

from transforms.domain.labels import LabelError, parse_labels


@pytest.mark.parametrize(
    "text",
    [
        "order_id\no-1\nö 2\n",
        "\ufeffwhen;order_id;amount\r\n2026-01-01;o-1;3,50\r\n;ö 2;\r\n\r\n",
        'why\torder_id\n"a\nb"\t"o-1"\n\tö 2',
        '{"order_id":"o-1","x":1}\n\n{"order_id":"ö 2"}',
        '{"kind":"fraud","order_id":"o-1"}\r\n{"kind":"near_miss","order_id":"o-9"}\n'
        '{"kind":"fraud","order_id":"ö 2"}\n{"kind":"summary","seed":1}\n',
    ],
)
def test_ids_are_read_from_csv_json_lines_and_the_simulators_truth(text: str) -> None:
    assert parse_labels(text) == {"o-1", "ö 2"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1: neither JSON nor"),
        ("id\no-1\n", "line 1: neither JSON nor a header of CSV with a column order_id"),
        ("order_id\n", "holds no order ids"),
        ("a,order_id\nx,o-1\nx\n", "line 3: no order_id"),
        ('{"order_id":"o-1"}\n{"order_id":1}', "line 2: no order_id"),
        ('{"order_id":"o-1"}\n{"id":"o-1"}', "line 2: no order_id"),
        ('{"order_id":"o-1"}\n["o-1"]', "line 2: not a JSON object"),
        ('{"order_id":"o-1"}\n{', "line 2: not JSON"),
        ('{"kind":"summary"}', "holds no order ids"),
    ],
)
def test_what_holds_no_labels_is_refused_at_its_line(text: str, why: str) -> None:
    with pytest.raises(LabelError, match=why):
        parse_labels(text)
