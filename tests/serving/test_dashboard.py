"""What the server gives a browser. What the page does with it: test_dashboard_browser.py."""

import hashlib
import re
from pathlib import Path

import pytest

import serving.dashboard

FOLDER = Path(serving.dashboard.__file__).parent
OURS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js", ".svg"})
# Of the files in uplot-1.6.32.tgz on npm. A new version brings new ones; an edit has no place there.
VENDORED = {
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_the_page_loads_only_what_this_server_has(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.content_type.startswith("text/html")
    addresses = set(re.findall(r'(?:src|href)="([^"#?]+)', page.text))
    assert "/dashboard/main.js" in addresses
    for address in addresses:
        assert client.get(address).status_code == 200, address
    # uPlot names its home in a comment; a comment loads nothing.
    for name in OURS:
        text = client.get(f"/dashboard/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|\"//[a-z]", text), f"{name} names another host"


def test_every_script_that_a_script_imports_is_there(client):
    imported = {name for own in OURS for name in re.findall(r'from "\./([^"]+)"', (FOLDER / own).read_text())}
    assert len(imported) > 5
    for name in imported:
        answer = client.get(f"/dashboard/{name}")
        assert answer.status_code == 200, name
        assert answer.content_type.startswith("text/javascript")


def test_the_page_runs_nothing_inline_and_its_policy_forbids_it(client):
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "<style" not in page.text
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", page.text)


def test_nothing_from_the_stream_is_ever_read_as_html():
    for name in OURS:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", (FOLDER / name).read_text()), (
            name
        )


def test_the_chart_library_is_what_its_authors_published():
    for name, digest in VENDORED.items():
        assert hashlib.sha256((FOLDER / "vendor" / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(
    "name", ["__init__.py", "uPlot.LICENSE", "nothing.js", "..%2f__init__.py", "vendor/uPlot.min.css"]
)
def test_only_the_parts_of_the_page_are_served(client, name):
    assert client.get(f"/dashboard/{name}").status_code == 404


def test_an_unchanged_page_is_not_sent_again(client):
    tag = client.get("/dashboard/main.js").headers["ETag"]
    assert client.get("/dashboard/main.js", headers={"If-None-Match": tag}).status_code == 304
