"""The page in a real browser: type, send, see both answers and the trace, stop, reset; text stays text."""

import re
from pathlib import Path

import pytest

from rerouting.pipeline.chat_style import Style
from rerouting.pipeline.conversation import Conversation
from rerouting.pipeline.trip import away
from tests.pipeline.tiny_pair import tiny_pair
from tests.web.serving import serving

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")
sync_api = pytest.importorskip("playwright.sync_api")
STYLE = Style(max_new_tokens=12, trip_below=0.9999)
SCRIPT = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"


@pytest.fixture(scope="module")
def pair():
    return tiny_pair(change=0.02, ends=False)


@pytest.fixture(scope="module")
def url(pair):
    with serving(pair, STYLE) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        with playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags) as found:
            yield found


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desktop", "phone"])
def page(browser, url, request):
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    sync_api.expect(page.locator("#run")).to_contain_text("tiny · trace of layer 1, 2")
    yield page
    page.close()
    assert errors == []


def ask(page, text):
    page.fill("#message", text)
    page.press("#message", "Enter")


def finished(page):
    sync_api.expect(page.locator("#send")).to_be_visible(timeout=30_000)


def shown(page, model, turn=0):
    return page.locator(f".answer.{model} .text").nth(turn)


def tokens(page, model, turn=0):
    """An answer's text without the page's own words in it."""
    own = "at => { const copy = at.cloneNode(true); copy.querySelectorAll('.mark, .note').forEach(one => one.remove());"
    return shown(page, model, turn).evaluate(f"{own} return copy.textContent; }}")


def test_both_answers_and_the_trace(page, pair):
    talk = Conversation(pair, STYLE)
    for turn, text in enumerate(["one", "two"]):
        events = [event for event in talk.ask(text) if getattr(event, "cosine", None) is not None]
        ask(page, text)
        finished(page)
        assert page.locator(".user").nth(turn).text_content() == text
        said = talk.exchanges[turn]
        assert tokens(page, "base", turn) == said.base
        assert tokens(page, "rerouted", turn) == said.rerouted
    bars = page.locator(".answer.rerouted").nth(1).locator(".bar")
    assert bars.count() == len(events) == 12
    assert page.locator(".answer.base .bar").count() == 0
    assert page.locator(".answer.rerouted .mark").count() == 2
    assert re.match(r"Tripped at token 1: cosine 0\.\d+, KL ", page.locator(".verdict").nth(1).text_content())
    said = page.locator(".answer.rerouted .said").nth(1)
    bars.nth(4).hover()
    figures = f"cosine {events[4].cosine:.3f}, KL {events[4].kl:.2f} nats"
    sync_api.expect(said).to_have_text(re.compile(rf"^Token 5 of 12, .*: {re.escape(figures)}$"))
    page.locator(".answer.rerouted .bars").nth(1).press("ArrowRight")
    sync_api.expect(said).to_have_text(re.compile("^Token 6 of 12"))
    heights = bars.locator("i").evaluate_all("all => all.map(one => one.style.height)")
    assert heights == [f"{round(10 + 90 * round(away(event.cosine), 3))}%" for event in events]
    assert len(set(heights)) > 3
    fits = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert fits


def test_columns_on_a_desktop_rows_on_a_phone(page):
    ask(page, "one")
    finished(page)
    base, rerouted = (page.locator(f".answer.{model}").bounding_box() for model in ("base", "rerouted"))
    if page.viewport_size["width"] > 700:
        assert base["y"] == rerouted["y"] and rerouted["x"] > base["x"] + base["width"]
    else:
        assert base["x"] == rerouted["x"] and rerouted["y"] > base["y"] + base["height"]


def test_markup_is_shown_as_text(page):
    page.click("summary")
    page.fill("#prefill", SCRIPT)
    ask(page, SCRIPT)
    finished(page)
    assert page.locator(".user").text_content() == SCRIPT
    for model in ("base", "rerouted"):
        assert tokens(page, model).startswith(SCRIPT)
    assert page.evaluate("window.hit === undefined")
    assert page.locator("main script, main img").count() == 0
    assert page.locator(".answer.rerouted .given").count() > 20
    sync_api.expect(page.locator("#set")).to_contain_text("prefill")


def test_system_prompt_and_settings_are_sent(page, pair):
    page.click("summary")
    page.fill("#system", "be brief")
    page.fill("#max_new_tokens", "3")
    ask(page, "one")
    finished(page)
    talk = Conversation(pair, Style(3), system="be brief")
    list(talk.ask("one"))
    assert tokens(page, "base") == talk.exchanges[0].base
    assert page.locator(".answer.base h2").text_content() == "basecut at the length asked for"


def test_stop_keeps_what_was_written_and_reset_forgets(page):
    page.click("summary")
    page.fill("#max_new_tokens", "1900")
    ask(page, "one")
    sync_api.expect(shown(page, "rerouted").locator(".tok").nth(5)).to_be_attached(timeout=20_000)
    page.click("#stop")
    finished(page)
    assert page.locator(".answer.base h2").text_content() == "basestopped"
    count = shown(page, "base").locator(".tok").count()
    assert 5 < count < 1500
    page.fill("#max_new_tokens", "4")
    with page.expect_request("**/answer") as sent:
        ask(page, "two")
    assert sent.value.post_data_json["exchanges"] == [
        {"user": "one", "base": tokens(page, "base"), "rerouted": tokens(page, "rerouted")}
    ]
    finished(page)
    assert shown(page, "base").locator(".tok").count() == count
    assert shown(page, "base", 1).locator(".tok").count() == 4
    page.click("#reset")
    assert page.locator(".turn").count() == 0
    sync_api.expect(page.locator("#hello")).to_be_visible()
    with page.expect_request("**/answer") as sent:
        ask(page, "three")
    assert sent.value.post_data_json["exchanges"] == []
    finished(page)
    assert shown(page, "base").locator(".tok").count() == 4


def test_reset_while_an_answer_is_written(page):
    page.click("summary")
    page.fill("#max_new_tokens", "1900")
    ask(page, "one")
    sync_api.expect(shown(page, "base").locator(".tok").nth(2)).to_be_attached(timeout=20_000)
    page.click("#reset")
    page.fill("#max_new_tokens", "2")
    with page.expect_request("**/answer") as sent:
        ask(page, "two")
    finished(page)
    assert sent.value.post_data_json["exchanges"] == []
    assert page.locator(".turn").count() == 1
    assert shown(page, "base").locator(".tok").count() == 2


def test_a_refused_message_is_given_back(browser, url):
    page = browser.new_page()
    page.goto(url)
    ask(page, "x" * 5000)
    sync_api.expect(page.locator("#problem")).to_contain_text("start a new one")
    assert page.input_value("#message") == "x" * 5000
    assert page.locator(".turn").count() == 0
    page.close()


def test_a_message_waits_for_the_options(browser, url):
    """Sent before the page knows them, it would ask for answers of no tokens."""
    page = browser.new_page()
    held = []
    page.route("**/about", lambda route: held.append(route))
    page.goto(url)
    ask(page, "x" * 5000)
    page.wait_for_timeout(300)
    assert page.input_value("#max_new_tokens") == "" and not page.locator("#problem").is_visible()
    held[0].continue_()
    sync_api.expect(page.locator("#problem")).to_contain_text("start a new one")
    page.close()


def test_a_server_that_is_gone_is_said(browser, pair):
    page = browser.new_page()
    with serving(pair, STYLE) as url:
        page.goto(url)
        sync_api.expect(page.locator("#run")).to_contain_text("tiny")
    ask(page, "one")
    sync_api.expect(page.locator("#problem")).to_contain_text("still running")
    page.close()
