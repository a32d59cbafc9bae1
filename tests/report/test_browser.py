"""The page in a real browser: plots drawn, no error, no overflow on a phone, both schemes, filters, print."""

from pathlib import Path

import pytest

from rerouting.report.page import write_report
from tests.report.made_up import EVIL, make_run

CHROMIUM = Path("/usr/bin/chromium")
api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium on this machine")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = [make_run(folder / name) for name in ("one", "two")]
    return write_report(runs[:1], folder / "one.html"), write_report(runs, folder / "two.html")


def opened(browser, file, view, scheme):
    page = browser.new_page(viewport=view, color_scheme=scheme, has_touch=view is PHONE)
    said, asked = [], []
    page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-plots=drawn]", timeout=60_000)
    return page, said, asked


@pytest.mark.parametrize(
    ("view", "scheme", "which"), [(WIDE, "light", 0), (PHONE, "dark", 0), (PHONE, "light", 1)]
)
def test_page_is_whole(browser, pages, view, scheme, which):
    page, said, asked = opened(browser, pages[which], view, scheme)
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= view["width"]
    assert page.locator(".canvas .main-svg").count() >= page.locator(".canvas").count() >= 14
    assert page.evaluate("window.pwned") is None
    red = int(page.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
    assert (red < 60) == (scheme == "dark")
    page.close()


def test_page_answers(browser, pages):
    page, said, _ = opened(browser, pages[0], WIDE, "light")
    shown = page.locator(".example:visible")
    assert shown.count() == 12
    page.locator(".more").click()
    assert shown.count() == 24
    page.locator(".filters select[name=set]").select_option("benign")
    assert shown.evaluate_all("found => new Set(found.map(one => one.dataset.set)).size") == 1
    page.locator(".filters input").fill("plain request 7")
    assert page.locator(".filters output").text_content() == "1 of 1"
    assert EVIL in shown.first.text_content()

    page.locator(".heat summary").first.click()
    page.locator(".tokens i").nth(4).hover()
    assert page.locator(".reading").first.text_content() == f"“{EVIL}”: cosine 0.400, KL 3.000"

    page.locator("#tradeoff select[data-axis=x]").select_option("over_refusal: complied benign %")
    drawn = page.evaluate("document.querySelector('#tradeoff .canvas').data[0].x")
    assert drawn == [95, 80]

    page.locator("#attacks .canvas .points path").nth(1).hover(force=True)
    page.wait_for_selector("#attacks .hovertext")
    assert "gcg <i>suffix</i>" in page.locator("#attacks .hovertext").first.text_content()
    assert said == []
    page.close()


def test_print_is_light_and_narrow(browser, pages):
    page, said, _ = opened(browser, pages[0], WIDE, "dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    colour = page.evaluate("document.querySelector('.canvas').layout.font.color")
    widest = page.evaluate(
        "Math.max(...Array.from(document.querySelectorAll('.main-svg'), one => one.clientWidth))"
    )
    assert (colour, widest) == ("#20242b", 660)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelector('.canvas').layout.font.color") == "#e4e5e2"
    assert said == []
    page.close()
