"""The store's user and password from a file, and their change while a connection is open."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import redis

from connections.settings import SettingsError
from connections.store import store_file, store_options
from schemas.addresses import StoreUrl
from serving.config import Config
from serving.connections import connect
from stack import Stack
from tests.connections.test_settings import written
from transforms.io.redis import RedisFn

SET = "return redis.call('SET', KEYS[1], ARGV[1])"


@pytest.mark.stack
def test_a_job_and_the_api_take_up_a_changed_password_at_their_next_connection(
    valkey: Stack, db: redis.Redis, tmp_path: Path
) -> None:
    password = Path(written(tmp_path, "first-password", "password"))
    db.acl_setuser(
        "of-a-file", enabled=True, reset=True, passwords=["+first-password"], keys=["*"], categories=["+@all"]
    )
    file = written(tmp_path, f"username=of-a-file\npassword=${{file:{password}}}\n", "store.properties")
    fn = RedisFn(StoreUrl(valkey.redis_url, file))
    assert b"first-password" not in pickle.dumps(fn._url)
    fn.setup()
    api = connect(Config(redis_url=valkey.redis_url, store_config=file), lambda _: None)
    try:
        for value in ("first", "second"):
            assert fn._run(SET, ["found"], [value]) == b"OK"
            assert api.ask(("GET", "found")) == [value.encode()]
            db.acl_setuser("of-a-file", enabled=True, reset_passwords=True, passwords=["+second-password"])
            password.write_text("second-password")
            for client in db.client_list():
                if client["user"] == "of-a-file":
                    db.client_kill_filter(_id=client["id"])
    finally:
        fn.teardown()
        db.acl_deluser("of-a-file")


def test_the_files_options_are_the_urls(tmp_path: Path) -> None:
    file = written(tmp_path, "ssl_ca_certs=/ca.pem\nssl_check_hostname=false\nusername=me\n")
    options = store_options(StoreUrl("rediss://user@store:6380/2", file))
    assert (options["host"], options["port"], options["db"]) == ("store", 6380, 2)
    assert (options["ssl_ca_certs"], options["ssl_check_hostname"], options["username"]) == ("/ca.pem", False, "me")


@pytest.mark.parametrize(
    ("text", "says"), [("pasword=hunter2", "is none of"), ("ssl_check_hostname=hunter2", "is not true or false")]
)
def test_what_cannot_work_is_refused_without_a_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        store_file(written(tmp_path, text))
    assert "hunter2" not in str(refused.value)
