"""The exporter of the replication slots' metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.__main__ import _parser
from cdc.database import MONITOR, ROLE, Database, secret
from tests.helm.chart import refusal, render

pytestmark = pytest.mark.deploy


def container(values: Any = None) -> dict[str, Any]:
    (found,) = render("prod", values).one("Deployment", "streamforge-slots")["spec"]["template"]["spec"]["containers"]
    return found


def test_the_command_takes_every_flag_that_the_chart_gives_it() -> None:
    args = container({"slots": {"database": "postgresql://reader@db.shop:5433/orders"}})["args"]
    assert args[:3] == ["-m", "cdc", "slots"]
    found = _parser().parse_args(args[2:])
    assert (found.host, found.port) == ("0.0.0.0", 9090)
    database = Database.parse(found.database)
    assert (database.host, database.port, database.user, database.name) == ("db.shop", 5433, "reader", "orders")
    assert str(found.secrets) == "/etc/streamforge/monitor"


def test_the_password_is_a_file_of_the_secret() -> None:
    spec = render().one("Deployment", "streamforge-slots")["spec"]["template"]["spec"]
    assert {"name": "monitor", "secret": {"secretName": "streamforge-monitor"}} in spec["volumes"]
    assert {"name": "monitor", "mountPath": "/etc/streamforge/monitor", "readOnly": True} in container()["volumeMounts"]


def test_it_is_not_the_role_that_may_replicate(tmp_path: Path) -> None:
    """What it is given opens no table, and no stream of changes."""
    (tmp_path / "monitor-password").write_text("drawn")
    assert secret(tmp_path, MONITOR) == "drawn"
    args = container()["args"]
    assert Database.parse(_parser().parse_args(args[2:]).database).user == MONITOR != ROLE


def test_a_password_in_the_url_is_refused() -> None:
    values = {"slots": {"database": "postgresql://reader:secret@db.shop/orders"}}
    assert "/slots/database" in refusal(values=values)


def test_its_image_is_the_one_for_capture_and_not_the_one_that_generates_traffic() -> None:
    assert container()["image"].endswith("/streamforge-cdc:0.1.0")


def test_it_is_not_there_when_it_is_off() -> None:
    assert "streamforge-slots" not in render("dev").all("Deployment")
