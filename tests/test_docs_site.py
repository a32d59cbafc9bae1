"""The docs site: built strictly, all of docs/ in it, nothing fetched from anywhere, search included."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
CHROMIUM = Path("/usr/bin/chromium")
LOADS = re.compile(
    r"""<(?:script|link|img|iframe|source|audio|video)\b[^>]*?\b(?:src|href)=["']?([^"'\s>]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return out


def navigated(entries):
    """Every file in a nav, whatever section it is in."""
    for entry in entries:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else navigated(value)


def test_every_page_stands_in_the_navigation_once():
    config = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text())
    assert sorted(navigated(yaml.safe_load(config)["nav"])) == PAGES and len(PAGES) > 10


def test_every_page_is_built_and_links_lead_somewhere(site):
    for page in PAGES:
        html = (site / page).with_suffix(".html").read_text()
        for target in re.findall(r'<a [^>]*href="([^"#]+)', html):
            assert target.startswith("https://") or (site / target).exists(), f"{page}: {target}"


def test_links_to_sources_name_files_that_exist():
    found = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\((\.\./[^)#]+)\)", (DOCS / page).read_text())
    ]
    assert len(found) >= 5
    assert [(page, target) for page, target in found if not (DOCS / target).exists()] == []


def test_nothing_is_loaded_from_elsewhere(site):
    pages = [page.read_text() for page in site.glob("*.html")]
    loads = {target.partition("#")[0] for page in pages for target in LOADS.findall(page)}
    assert len(loads) > 8
    assert [target for target in loads if "//" in target.removeprefix("data:")] == []
    assert all((site / target.lstrip("/")).exists() for target in loads if not target.startswith("data:"))
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text()), sheet


def test_the_first_page_shows_the_readmes_numbers(site):
    html = (site / "index.html").read_text()
    rows = re.findall(
        r"^(\w+) +rerouted +\d+ +([\d.]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE
    )
    assert len(rows) == 4
    for name, answered in rows:
        assert f"{name}, rerouted: {float(answered):g} % answered" in html
    for scheme in ("light", "dark"):
        drawing = (site / "images" / f"quickstart-{scheme}.svg").read_text()
        assert "<svg" in drawing and "font-family" not in drawing


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs chromium")
def test_the_search_works_from_the_disk_without_a_network(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.wait_for_timeout(500)
        page.keyboard.type("reproduce")
        page.wait_for_selector(
            '.md-search-result__item a[href*="sharing.html"]', state="attached", timeout=20000
        )
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:"))] == []
