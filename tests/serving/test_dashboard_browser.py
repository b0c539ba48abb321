"""The dashboard in a real browser: a real server, a real store, rows written as the jobs write them while the page is
open. At the end of each test no console error may be left: the browser reports there what its policy has stopped."""

import hashlib
import re
import time

import pytest
import redis
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from schemas.store_keys import KEYS
from stack import Stack
from tests import browser as shop
from tests.build import MINUTE, alert, minute, session
from tests.store import order, write
from tests.transforms.io.test_redis_cdc import of_product
from tests.transforms.io.test_redis_cdc import write as write_products

pytestmark = pytest.mark.stack

expect.set_options(timeout=60_000)
PHONE = {"width": 390, "height": 844}
CARDS = "#alerts ol > li"


@pytest.fixture(scope="module")
def chromium():
    with shop.needed() as browser:
        yield browser


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Stack(tmp_path_factory.mktemp("valkey"), ["valkey"], ports="free") as stack:
        yield stack


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    server = shop.Server(store.redis_url, tmp_path_factory.mktemp("server") / "log")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def db(store):
    with redis.Redis.from_url(store.redis_url) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def hour(store, db):
    shop.write_an_hour(store.redis_url)


class Visit:
    """A page, and what its console complained about."""

    def __init__(self, page, url):
        self.page, self.url = page, url
        self.faults = []
        page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def open(self, hash_=""):
        self.page.goto(f"{self.url}/{hash_}")
        expect(self.page.locator("#status")).to_have_attribute("data-level", "ok")
        return self.page


@pytest.fixture
def visit(chromium, server):
    """Opens the page as a visitor with these settings."""
    opened = []

    def make(url=server.url, **settings):
        context = chromium.new_context(**({"viewport": {"width": 1440, "height": 1000}} | settings))
        opened.append((context, Visit(context.new_page(), url)))
        return opened[-1][1]

    yield make
    for context, each in opened:
        each.page.unroute_all(behavior="ignoreErrors")  # a request that is under way would fail in the next test
        context.close()
        assert each.faults == []


def card(page, user):
    return page.locator(CARDS).filter(has=page.get_by_role("link", name=user, exact=True))


def colours(page):
    """How many colours the chart shows."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector("#chart canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const seen = new Map();
            for (let i = 0; i < data.length; i += 4) {
                const colour = data.slice(i, i + 4).join();
                seen.set(colour, (seen.get(colour) ?? 0) + 1);
            }
            return [...seen.values()].filter((pixels) => pixels > 500).length;
        }"""
    )


@pytest.mark.parametrize("has_stream", [True, False], ids=["by the stream", "by polling"])
def test_an_alert_appears_without_a_reload(visit, store, hour, has_stream):
    seen = visit()
    if not has_stream:
        seen.page.route("**/api/v1/stream*", lambda route: route.fulfill(status=503, body="full"))
    page = seen.open()
    expect(page.locator("#status")).to_have_text("Live" if has_stream else "Live, every 2 s")
    expect(page.locator(CARDS)).not_to_have_count(0)
    page.evaluate("window.isTheSamePage = true")
    write(store.redis_url, [shop.an_alert("new", rule="HIGH_VALUE_BURST")])
    expect(card(page, "user-of-new")).to_contain_text("High value burst")
    expect(card(page, "user-of-new")).to_have_class(re.compile("fresh"))
    expect(page.locator("#announce")).to_contain_text("High value burst, user user-of-new")
    assert page.evaluate("window.isTheSamePage")
    if not has_stream:
        seen.faults = [fault for fault in seen.faults if "503" not in fault]


def test_the_chart_draws_the_hour_and_grows_with_the_open_minute(visit, store, hour):
    page = visit().open()
    expect(page.locator("#legend li")).to_have_count(7)
    expect(page.locator("#legend")).to_contain_text("Elektronik")
    assert colours(page) >= 7
    page.get_by_role("button", name="Region").click()
    expect(page.locator("#legend")).to_contain_text("Trabzon")
    expect(page.locator("#legend")).not_to_contain_text("Elektronik")
    assert colours(page) >= 7
    now = time.time_ns() // 1_000_000 // MINUTE * MINUTE
    for start in (now, now + MINUTE):  # the next one may begin meanwhile
        write(store.redis_url, [minute(start, gmv_minor=987_654_300, order_count=77, version=9)])
    expect(page.locator("#tile-minute")).to_have_text("₺9,876,543")
    expect(page.locator("#tile-minute-more")).to_contain_text("77 orders")


def test_a_minute_can_be_looked_at_by_mouse_by_keyboard_and_as_a_table(visit, hour):
    page = visit().open()
    tip = page.locator(".tip")
    page.locator("#chart").hover()
    expect(tip).to_contain_text("Elektronik")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    page.locator("#chart").focus()
    page.keyboard.press("ArrowLeft")
    expect(tip).to_contain_text("open")
    page.keyboard.press("ArrowLeft")
    expect(tip).not_to_contain_text("open")
    expect(page.locator("#announce")).to_contain_text("orders")
    page.locator("#revenue-table summary").click()
    expect(page.locator("#revenue-table tbody tr").nth(50)).to_be_visible()


def test_the_feed_can_be_filtered_by_rule_and_paused(visit, store, hour):
    page = visit().open()
    expect(page.locator(CARDS)).to_have_count(60)
    chip = page.get_by_role("button", name="Rapid orders")
    chip.click()
    expect(chip).to_have_attribute("aria-pressed", "true")
    expect(page.locator(CARDS)).to_have_count(12)
    assert set(page.locator(f"{CARDS} .cover").all_inner_texts()) == {"Rapid orders"}
    page.get_by_role("button", name="Pause").click()
    write(store.redis_url, [shop.an_alert("other", rule="LOCATION_ANOMALY"), shop.an_alert("mine")])
    resume = page.get_by_role("button", name="Resume (2 new)")
    expect(resume).to_be_visible()
    expect(page.locator(CARDS)).to_have_count(12)
    resume.click()
    expect(card(page, "user-of-mine")).to_be_visible()
    expect(page.locator(CARDS)).to_have_count(13)


def test_an_alert_opens_to_the_orders_behind_it_and_its_user(visit, hour):
    page = visit().open()
    first = page.locator(f"{CARDS} .cover").first
    name = first.inner_text()
    first.focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog", name=name)
    expect(drawer.locator(".orders li")).to_have_count(3)
    expect(drawer.locator(".orders li").last).to_contain_text("completes the pattern")
    expect(drawer).to_contain_text("Orders, 1 h")
    address = page.url
    drawer.get_by_role("link", name=re.compile("^user-of-")).click()
    expect(page.get_by_role("dialog", name=re.compile("^user-of-"))).to_contain_text("Latest sessions")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page).to_have_url(re.compile("/$"))
    page.goto("about:blank")
    page.goto(address)
    expect(page.get_by_role("dialog", name=name).locator(".orders li")).to_have_count(3)
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_sessions_and_ledgers_are_shown(visit, store, db, hour):
    counts = {"in": 1_010, "good": 1_000, "dead_letters": 6, "late": 3, "duplicates": 1}
    now = time.time_ns() // 1_000_000
    db.hset(KEYS.ledger("fraud-detector"), mapping=counts | {"updated_ms": now})
    db.hset(KEYS.ledger("archiver"), mapping=counts | {"good": 990, "updated_ms": now, "lost": 0})
    page = visit().open()
    fraud = page.get_by_role("row", name=re.compile("fraud-detector"))
    expect(fraud).to_contain_text("balances")
    expect(fraud).to_contain_text("1,010")
    expect(page.get_by_role("row", name=re.compile("archiver"))).to_contain_text("10 missing")
    expect(page.locator("#tile-ledger-more")).to_have_text("1 of 2 ledgers do not balance")
    db.hset(KEYS.ledger("archiver"), mapping={"good": 1_000, "lost": 4_000})
    expect(page.locator("#tile-ledger-more")).to_have_text("4,000 lost before being read")
    expect(page.get_by_role("row", name=re.compile("archiver")).locator("td.bad")).to_have_text("4,000")
    expect(page.locator("#tile-sessions")).to_have_text("40")
    expect(page.locator("#sessions tbody tr")).to_have_count(12)
    expect(page.locator("#sessions tbody tr").first).to_contain_text("₺")  # those who bought come first
    expect(page.locator("#freshness")).to_contain_text("fraud alerts")


def with_progress(seen, **jobs):
    """What the API adds where `--kafka` names a broker: tests/serving/test_progress.py."""

    def add(route):
        answer = route.fetch()
        told = answer.json()
        told["data"]["progress"] = {
            job.replace("_", "-"): {"lag": lag, "watermark_delay_s": delay, "topics": {}}
            for job, (lag, delay) in jobs.items()
        }
        route.fulfill(response=answer, json=told)

    seen.page.route("**/api/v1/health", add)
    return seen


def test_how_far_the_jobs_are_behind_is_shown_also_of_those_without_a_ledger(visit, store, db, hour):
    db.hset(KEYS.ledger("fraud-detector"), mapping={"in": 7, "good": 7})
    page = with_progress(visit(), fraud_detector=(12_345, 90.5), archiver=(0, None)).open()
    fraud = page.get_by_role("row", name=re.compile("fraud-detector"))
    expect(fraud).to_contain_text("12,345")
    expect(fraud).to_contain_text("91 s")
    headings = page.locator("#health thead th").all_inner_texts()
    archiver = page.get_by_role("row", name=re.compile("archiver")).locator("th, td")
    expect(archiver.nth(headings.index("Lag"))).to_have_text("0")
    expect(archiver.nth(headings.index("Good"))).to_have_text("–")


@pytest.mark.parametrize("width", [1280, 1440, 1920])
def test_on_a_desk_every_column_of_the_pipelines_and_all_tiles_in_one_row_are_seen(visit, store, db, hour, width):
    counts = {"in": 9_876_543, "good": 9_865_432, "dead_letters": 7_654, "late": 2_345, "duplicates": 1_112}
    for job in ("fraud-detector", "revenue-calculator", "session-aggregator"):
        db.hset(KEYS.ledger(job), mapping=counts | {"updated_ms": time.time_ns() // 1_000_000, "lost": 12_345})
    seen = with_progress(
        visit(viewport={"width": width, "height": 1000}),
        **dict.fromkeys(("fraud_detector", "revenue_calculator", "session_aggregator"), (123_456, 4_000)),
    )
    page = seen.open()
    expect(page.locator("#health tbody tr")).to_have_count(3)
    expect(page.get_by_role("row", name=re.compile("fraud-detector"))).to_contain_text("9,876,543")
    assert (
        page.evaluate(
            "(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(document.getElementById('health-scroll'))"
        )
        == 0
    )
    tops = page.evaluate("[...document.querySelectorAll('.tile')].map((tile) => tile.getBoundingClientRect().top)")
    assert len(tops) == 6
    assert len(set(tops)) == 1


def test_an_alert_that_is_corrected_is_drawn_anew(visit, store, db, hour):
    page = visit().open()
    expect(page.locator(CARDS)).not_to_have_count(0)
    now = time.time_ns() // 1_000_000
    write(store.redis_url, [alert(alert_id="corrected", amount_minor=700_000, event_time=now)])
    expect(page.locator(CARDS, has_text="7,000.00")).to_have_count(1)
    write(store.redis_url, [alert(alert_id="corrected", amount_minor=900_000, event_time=now + 1)])
    expect(page.locator(CARDS, has_text="9,000.00")).to_have_count(1)
    expect(page.locator(CARDS, has_text="7,000.00")).to_have_count(0)


@pytest.mark.parametrize("user", ["..", ".", "auth0|5f", "https://id.example/u/7?a#b", "ü 😀", "a%2Fb"])
def test_a_user_of_any_id_can_be_looked_at(visit, store, db, hour, user):
    write(store.redis_url, [alert(alert_id="a-1", user_id=user, event_time=time.time_ns() // 1_000_000)])
    write(store.redis_url, [session(user)])
    page = visit().open()
    page.locator(CARDS).get_by_role("link", name=user, exact=True).click()
    shown = page.get_by_role("dialog", name=user)
    expect(shown.get_by_text("Alerts kept")).to_be_visible()
    expect(shown.locator("tbody tr")).to_have_count(1)
    for link in shown.get_by_role("link").filter(has_text=re.compile("^(features|sessions|fraud-alerts)$")).all():
        answer = page.request.get(link.evaluate("a => a.href"))
        assert answer.ok
        assert user in answer.text()


def test_products_low_on_stock_are_shown(visit, store, db, hour):
    page = visit().open()
    expect(page.locator("#sessions tbody tr")).not_to_have_count(0)
    expect(page.locator("#inventory")).to_be_hidden()
    db.hset(KEYS.ledger("cdc-processor"), mapping={"in": 1, "good": 1})
    page.reload()
    expect(page.locator("#inventory .empty")).to_be_visible()
    write_products(store.redis_url, [of_product(1, "few", 3), of_product(2, "many", 30)])
    page.reload()
    expect(page.locator("#inventory tbody tr")).to_have_count(1)
    expect(page.locator("#inventory tbody tr")).to_contain_text("Çay")


def test_the_theme_follows_the_system_until_one_is_chosen_and_is_remembered(visit, hour):
    page = visit(color_scheme="dark").open()
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    toggle = page.get_by_role("button", name="Theme")
    expect(toggle).to_have_text("Theme: system")
    toggle.click()
    expect(toggle).to_have_text("Theme: light")
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    expect(toggle).to_have_text("Theme: light")
    assert page.evaluate(background) == light
    toggle.click()
    assert page.evaluate(background) == dark


def test_a_phone_need_not_scroll_sideways(visit, hour):
    page = visit(viewport=PHONE, has_touch=True).open()
    expect(page.locator("#chart canvas")).to_be_visible()
    expect(page.locator(CARDS)).to_have_count(60)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator(f"{CARDS} .cover").first.tap()
    expect(page.locator(".orders li")).to_have_count(3)
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, hour, theme):
    # Without motion: a text that fades in has little contrast on its way.
    page = visit(color_scheme=theme, reduced_motion="reduce").open()
    expect(page.locator(CARDS)).to_have_count(60)
    expect(page.locator("#legend li")).to_have_count(7)
    assert serious_faults(page) == []
    page.locator(f"{CARDS} .cover").first.click()
    expect(page.locator(".orders li")).to_have_count(3)
    assert serious_faults(page) == []


def serious_faults(page):
    found = Axe().run(page).response
    assert len(found["passes"]) > 20
    return [
        (fault["id"], [node["html"] for node in fault["nodes"]])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]


def test_an_empty_store_says_what_to_do(visit, db):
    page = visit().open()
    for panel in ("#alerts", "#revenue", "#health", "#sessions"):
        expect(page.locator(f"{panel} .empty")).to_contain_text("make demo")


def test_what_the_stream_says_is_text_and_never_a_page(visit, store, hour):
    page = visit().open()
    odd = "<img src=x onerror=alert(1)>"
    [alert] = [shop.an_alert("odd")]
    write(
        store.redis_url, [type(alert)(**{f: getattr(alert, f) for f in alert.__struct_fields__} | {"description": odd})]
    )
    expect(card(page, "user-of-odd")).to_contain_text(odd)
    assert page.locator("#alerts img").count() == 0


def test_the_browser_enforces_the_policy_and_this_test_would_see_it(visit, hour):
    seen = visit()
    page = seen.open()
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    page.evaluate("fetch('http://127.0.0.2:9/').catch(() => 0)")
    assert page.evaluate("window.ran") is None
    assert len([fault for fault in seen.faults if "Content Security Policy" in fault]) >= 2
    seen.faults.clear()


def test_with_api_keys_the_page_asks_for_one_and_then_works(visit, store, hour, tmp_path):
    key = "a-key-of-256-bits"
    keys = tmp_path / "keys"
    keys.write_text(f"dashboard:{hashlib.sha256(key.encode()).hexdigest()}")
    guarded = shop.Server(store.redis_url, tmp_path / "log", f"--api_keys={keys}")
    guarded.start()
    try:
        seen = visit(guarded.url)
        page = seen.page
        page.goto(guarded.url)
        expect(page.locator("#status")).to_have_text("Key needed")
        page.get_by_label("This API needs a key.").fill("another key")
        page.get_by_role("button", name="Use key").click()
        expect(page.locator("#key-form")).to_contain_text("Unknown key")
        page.get_by_label("This API needs a key.").fill(key)
        page.get_by_role("button", name="Use key").click()
        expect(page.locator("#status")).to_have_text("Live")
        expect(page.locator(CARDS)).to_have_count(60)
        page.reload()
        expect(page.locator("#status")).to_have_text("Live")
    finally:
        guarded.stop()
    seen.faults = [fault for fault in seen.faults if "401" not in fault and "ERR_" not in fault]


def test_a_page_in_the_background_holds_no_stream_and_catches_up_when_it_is_back(visit, store, hour):
    page = visit().open()
    status = page.locator("#status")
    expect(status).to_have_text("Live")
    background = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(background, True)
    expect(status).to_have_text("Live, every 2 s")
    write(store.redis_url, [shop.an_alert("meanwhile")])
    write(store.redis_url, [session("buyer", purchases=9)])
    page.evaluate(background, False)
    expect(status).to_have_text("Live")
    expect(card(page, "user-of-meanwhile")).to_be_visible()
    expect(page.locator("#sessions")).to_contain_text("buyer")


def test_a_store_and_an_api_that_were_away_come_back_by_themselves(visit, store, server, hour):
    seen = visit()
    page = seen.open()
    status, away = page.locator("#status"), page.locator("#away")
    store.stop("valkey")
    expect(status).to_have_text("Store down")
    expect(away).to_contain_text("This is the state of")
    store.start("valkey")
    expect(status).to_contain_text("Live")
    expect(away).to_be_hidden()
    server.stop()
    expect(status).to_have_text("API down")
    expect(away).to_contain_text("make demo")
    server.start()
    expect(status).to_contain_text("Live")
    write(store.redis_url, [shop.an_alert("after")])
    expect(card(page, "user-of-after")).to_be_visible()
    seen.faults.clear()  # the browser notes every request that failed


# The desk: what a fraud team does with alerts


def told(page, path):
    """What the API says, by the browser's connection."""
    return page.request.get(f"{page.url.split('/?')[0].split('/#')[0].rstrip('/')}/api/v1{path}").json()["data"]


def test_a_state_is_given_with_a_note_and_everybody_sees_it(visit, store, hour):
    write(store.redis_url, [shop.an_alert("mine", rule="HIGH_VALUE_BURST")])
    page, other = visit().open(), visit().open()
    card(page, "user-of-mine").locator(".cover").click()
    judgement = page.locator("#judgement")
    expect(judgement).to_contain_text("nobody has looked at it yet")
    judgement.get_by_label("Note").fill("the card was stolen")
    judgement.get_by_role("button", name="Confirm fraud").click()
    expect(judgement.locator("strong")).to_have_text("Confirmed")
    expect(judgement.locator(".note")).to_have_text("the card was stolen")
    expect(judgement.get_by_role("button", name="Confirm fraud")).to_be_focused()
    [label] = told(page, "/labels")
    assert (label["order_id"], label["kind"], label["note"]) == ("o-mine-3", "fraud", "the card was stolen")
    expect(card(other, "user-of-mine").locator(".state")).to_have_text("Confirmed")
    page.keyboard.press("f")
    expect(judgement.locator("strong")).to_have_text("False alarm")
    expect(card(other, "user-of-mine").locator(".state")).to_have_text("False alarm")
    page.reload()
    expect(judgement.locator("strong")).to_have_text("False alarm")


def test_alerts_are_gone_through_by_keyboard_alone(visit, store, hour):
    page = visit().open("?state=new")
    covers = page.locator(f"{CARDS} .cover")
    expect(covers).to_have_count(60)
    names = covers.evaluate_all("all => all.map((a) => a.hash)")
    page.keyboard.press("j")
    expect(covers.nth(0)).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(covers.nth(1)).to_be_focused()
    page.keyboard.press("c")
    expect(covers).to_have_count(59)
    expect(page.locator(f'{CARDS} .cover[href="{names[2]}"]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".orders li")).to_have_count(3)
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(re.escape(names[3]) + "$"))
    expect(page.locator("#judgement")).to_be_visible()
    page.keyboard.press("f")
    expect(page.locator("#judgement strong")).to_have_text("False alarm")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"\?state=new$"))
    assert sorted(each["state"] for each in told(page, "/labels")) == ["confirmed", "false_alarm"]
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("false alarm")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("jcf")
    expect(page.locator("#search")).to_have_value("jcf")


def test_a_search_is_in_the_address_and_a_user_without_alerts_is_found_too(visit, store, hour):
    write(store.redis_url, [session("quiet-user")])
    page = visit().open()
    expect(page.locator(CARDS)).to_have_count(60)
    search = page.get_by_label("Search by user, order or alert")
    search.fill("O-OLD-007-2")
    expect(page.locator(CARDS)).to_have_count(1)
    page.get_by_label("State", exact=True).select_option("New")
    page.get_by_role("button", name="High value first order").click()
    expect(page).to_have_url(re.compile("q=O-OLD-007-2.*state=new.*rule=HIGH_VALUE_FIRST_ORDER"))
    page.reload()
    expect(page.locator(CARDS)).to_have_count(1)
    expect(search).to_have_value("O-OLD-007-2")
    search.fill("quiet-user")
    expect(page.locator("#alerts .empty")).to_contain_text("None of the newest 60 alerts is like that")
    search.press("Enter")
    expect(page.get_by_role("dialog", name="quiet-user").locator("tbody tr")).to_have_count(1)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Show all alerts").click()
    expect(page.locator(CARDS)).to_have_count(60)
    expect(page).to_have_url(re.compile("/$"))


def test_orders_behind_an_alert_and_of_a_user_have_amount_time_and_a_place_in_the_picture(visit, store, hour):
    now = time.time_ns() // 1_000_000
    alert_ = shop.an_alert("mine", now)
    rows = [order(f"o-mine-{k}", now - (3 - k) * 20_000, 10_000 * k, "user-of-mine", region="Bursa") for k in (1, 2, 3)]
    rows.append(order("o-before", now - 90_000, 500, "user-of-mine"))
    write(store.redis_url, rows)
    write(store.redis_url, [alert_])
    page = visit(locale="de-DE", timezone_id="Asia/Tokyo").open()
    card(page, "user-of-mine").locator(".cover").click()
    orders = page.locator(".orders li")
    expect(orders).to_have_count(3)
    expect(orders.nth(0)).to_contain_text(re.compile(r"100,00.*GMT\+9.*Bursa"))
    expect(page.locator(".timeline .behind")).to_have_count(3)
    expect(page.get_by_role("img", name="3 orders within 40 s")).to_be_visible()
    page.get_by_role("link", name="User user-of-mine").click()
    user = page.get_by_role("dialog", name="user-of-mine")
    expect(user.locator("tbody tr")).to_have_count(4)
    expect(user.locator("tbody tr").first).to_contain_text("o-mine-3")
    expect(page.locator("#zone")).to_contain_text("Asia/Tokyo")


def test_counts_say_that_there_are_more_until_all_are_here(visit, store, db):
    now = time.time_ns() // 1_000_000
    write(store.redis_url, [shop.an_alert(f"n-{i}", now - i * 100, user=f"u-{i % 9}") for i in range(1_650)])
    page = visit().open()
    everything = page.locator("#rules button").first
    expect(everything).to_have_text("All 1,000+")
    expect(page.locator("#alerts-shown")).to_have_text("60 of 1,000 among the newest 1,000")
    more = page.locator("#older")
    for _ in range(1_650 // 60 + 2):
        if not more.is_visible():
            break
        more.click()
        expect(more).to_be_enabled()
    expect(everything).to_have_text("All 1,650")
    expect(page.locator("#alerts-shown")).to_have_text("1,650 of 1,650")


def guarded(store, folder, scopes):
    key = "a-key-of-256-bits"
    folder.joinpath("keys").write_text(f"ann:{hashlib.sha256(key.encode()).hexdigest()}:{scopes}")
    return key, shop.Server(store.redis_url, folder / "log", f"--api_keys={folder / 'keys'}")


def test_without_a_key_nothing_looks_like_an_empty_shop(visit, store, hour, tmp_path):
    _, server = guarded(store, tmp_path, "read")
    server.start()
    try:
        seen = visit(server.url)
        page = seen.page
        page.goto(server.url)
        expect(page.locator("#status")).to_have_text("Key needed")
        assert set(page.locator(".tile .hint").all_inner_texts()) == {"needs an API key"}
        assert set(page.locator(".tile .big").all_inner_texts()) == {"–"}
        for panel in ("#alerts", "#revenue", "#health", "#sessions"):
            expect(page.locator(f"{panel} > .empty")).to_have_text("Not shown without an API key: enter it above.")
        page.goto("about:blank")
    finally:
        server.stop()
    seen.faults.clear()


@pytest.mark.parametrize("scopes", ["read", "read+label"])
def test_who_may_label_is_up_to_the_key(visit, store, hour, tmp_path, scopes):
    key, server = guarded(store, tmp_path, scopes)
    server.start()
    try:
        seen = visit(server.url)
        page = seen.page
        page.goto(server.url)
        page.get_by_label("This API needs a key.").fill(key)
        page.get_by_role("button", name="Use key").click()
        page.locator(f"{CARDS} .cover").first.click()
        judgement = page.locator("#judgement")
        if scopes == "read":
            expect(judgement).to_contain_text("a key of the scope label")
            expect(judgement.get_by_role("button")).to_have_count(0)
        else:
            judgement.get_by_role("button", name="False alarm").click()
            expect(judgement).to_contain_text("by ann")
        page.goto("about:blank")
    finally:
        server.stop()
    seen.faults.clear()


def test_a_job_whose_ledger_is_elsewhere_is_not_said_to_balance(visit, store, db, hour):
    db.hset(KEYS.ledger("fraud-detector"), mapping={"in": 7, "good": 7})
    page = with_progress(visit(), fraud_detector=(0, 1.0), archiver=(0, None)).open()
    expect(page.locator("#tile-ledger-more")).to_have_text("1 of 2 ledgers balance; not here: archiver")
    expect(page.get_by_role("row", name=re.compile("archiver"))).to_contain_text("not in the store")


@pytest.mark.parametrize("width", [390, 700, 1280])
def test_nothing_of_the_pipelines_is_hidden_and_no_tile_is_alone_in_its_row(visit, store, db, hour, width):
    counts = {"in": 9_876_543, "good": 9_865_432, "dead_letters": 7_654, "late": 2_345, "duplicates": 1_112}
    db.hset(KEYS.ledger("fraud-detector"), mapping=counts | {"updated_ms": time.time_ns() // 1_000_000, "lost": 0})
    page = visit(viewport={"width": width, "height": 900}).open()
    expect(page.locator("#health tbody tr")).to_have_count(1)
    tops = page.evaluate("[...document.querySelectorAll('.tile')].map((tile) => tile.getBoundingClientRect().top)")
    assert {tops.count(top) for top in tops} == {{390: 2, 700: 3, 1280: 6}[width]}
    if width == 390:
        cells = page.locator("#health tbody td")
        assert cells.count() == 11
        boxes = [cell.bounding_box() for cell in cells.all()]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
        names = cells.evaluate_all("all => all.map((cell) => getComputedStyle(cell, '::before').content)")
        assert '"Dead letters"' in names


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_a_users_page_and_in_the_list_of_keys(visit, store, hour, theme):
    write(store.redis_url, [shop.an_alert("mine")])
    write(store.redis_url, [order("o-mine-1", time.time_ns() // 1_000_000, 10_000, "user-of-mine")])
    page = visit(color_scheme=theme, reduced_motion="reduce").open("#user/user-of-mine")
    expect(page.get_by_role("dialog").locator("tbody tr")).to_have_count(1)
    assert serious_faults(page) == []
    page.keyboard.press("Escape")
    card(page, "user-of-mine").locator(".cover").focus()
    page.keyboard.press("c")
    expect(card(page, "user-of-mine").locator(".state")).to_have_text("Confirmed")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    assert serious_faults(page) == []
