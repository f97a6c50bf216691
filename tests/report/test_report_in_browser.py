"""The pages in a browser: all sections appear; nothing is logged, fetched, truncated or executed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, set_width
from made_up import STRANGE
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from sheaf.report.page import write_report

WIDTHS = (1200, 700)
SECTIONS = {
    "ecavg": ["verdict", "gain", "steps", "confusion", "split", "curves", "cost", "settings"],
    "rounds": ["verdict", "gain", "steps", "confusion", "split", "curves", "cost", "settings"],
    "guarded": ["verdict", "gain", "choices", "steps", "confusion", "split", "curves", "cost", "settings"],
    "decoupled": ["verdict", "gain", "steps", "confusion", "split", "cuts", "curves", "cost", "settings"],
    "fedavg": ["verdict", "gain", "steps", "confusion", "split", "curves", "cost", "settings"],
    "local": ["verdict", "gain", "split", "curves", "cost", "settings"],
    "several": ["methods", "frontier", "runs"],
    "strange": ["verdict", "gain", "steps", "confusion", "split", "curves", "cost", "refused", "settings"],
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {name: write_report([runs / name], folder / f"{name}.html") for name in SECTIONS}


def opened(browser: webdriver.Chrome, page: Path, width: int) -> webdriver.Chrome:
    set_width(browser, width)
    browser.get(page.as_uri())
    return browser


def ask(browser: webdriver.Chrome, script: str) -> Any:
    return browser.execute_script(f"return {script}")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SECTIONS)
def test_a_page(name: str, width: int, pages: dict[str, Path], browser: webdriver.Chrome) -> None:
    opened(browser, pages[name], width)
    assert browser.get_log("browser") == [], "nothing to complain of"
    assert ask(browser, "[...document.querySelectorAll('section')].map(s => s.id)") == SECTIONS[name]
    assert ask(browser, "document.documentElement.scrollWidth") <= width, "nothing sticks out"
    fetched = ask(browser, "performance.getEntriesByType('resource').map(r => r.name)")
    assert [address for address in fetched if not address.startswith("data:")] == []
    for section in browser.find_elements(By.TAG_NAME, "section"):
        assert section.find_element(By.TAG_NAME, "h2").is_displayed()
        assert section.find_element(By.CLASS_NAME, "finding").text.strip(".")
    pictures = ask(
        browser,
        "[...document.querySelectorAll('figure svg')].map(svg => [svg.querySelectorAll('path').length, "
        "svg.ariaLabel.length, svg.getBoundingClientRect().width / svg.getAttribute('width'), "
        "svg.querySelectorAll('[data-value]').length, svg.querySelectorAll('title').length])",
    )
    assert pictures
    for paths, alt, scale, values, titles in pictures:
        assert paths > 5
        assert alt > 40
        assert 0.9 < scale <= 1, "legible as it is"
        assert values > 0
        assert titles == 0, "no second tooltip, by the browser"
    ids = ask(browser, "[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))


def test_a_value_appears_under_the_pointer(pages: dict[str, Path], browser: webdriver.Chrome) -> None:
    opened(browser, pages["ecavg"], 700)
    tip = browser.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    marker = browser.find_element(By.CSS_SELECTOR, "#gain [data-value^='edge-1, before update: ']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", marker)
    ActionChains(browser).move_to_element(marker).perform()
    assert tip.is_displayed()
    assert tip.text == marker.get_attribute("data-value")
    assert ask(browser, "document.querySelector('#tip').getBoundingClientRect().right") <= 700
    ActionChains(browser).move_to_element(browser.find_element(By.TAG_NAME, "h2")).perform()
    assert not tip.is_displayed()


def test_the_page_and_its_pictures_follow_the_colour_scheme(
    pages: dict[str, Path], browser: webdriver.Chrome
) -> None:
    opened(browser, pages["ecavg"], 1200)
    seen = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        seen[scheme] = ask(
            browser,
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, "
            "getComputedStyle(document.querySelector('#gain-patch_1 path')).fill, "
            "[...document.querySelectorAll('figure svg [style]')].filter(element => "
            "/#[0-9a-f]{6}/.test(element.getAttribute('style'))).length]",
        )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen["light"] == ["rgb(255, 255, 255)", "rgb(27, 31, 36)", "rgb(255, 255, 255)", 0]
    assert seen["dark"] == ["rgb(21, 25, 30)", "rgb(230, 233, 237)", "rgb(21, 25, 30)", 0]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_that_scrolls_has_a_cue(
    width: int, pages: dict[str, Path], browser: webdriver.Chrome
) -> None:
    opened(browser, pages["several"], width)
    cue = browser.find_element(By.CSS_SELECTOR, "#methods .cue")
    hidden = ask(browser, "(s => s.scrollWidth - s.clientWidth)(document.querySelector('#methods .scroll'))")
    assert cue.is_displayed() == (hidden > 0) == (width == 700)


@pytest.mark.parametrize("name", SECTIONS)
def test_tables_have_captions_and_header_cells(
    name: str, pages: dict[str, Path], browser: webdriver.Chrome
) -> None:
    opened(browser, pages[name], 1280)
    tables = ask(
        browser,
        """[...document.querySelectorAll("table")].map(t => [t.caption.textContent.length,
            [...t.tHead.rows[0].cells].every(c => c.tagName === "TH" && c.scope === "col"),
            [...t.tBodies[0].rows].every(r => r.cells[0].scope === "row"
                && r.cells.length === t.tHead.rows[0].cells.length)])""",
    )
    assert tables
    assert all(caption and columns and rows for caption, columns, rows in tables)
    assert ask(browser, "document.documentElement.lang") == "en"
    headings = ask(browser, "[...document.querySelectorAll('h1,h2')].map(h => h.tagName)")
    assert headings[:2] == ["H1", "H2"]
    assert headings.count("H1") == 1


def test_names_from_outside_are_escaped(pages: dict[str, Path], browser: webdriver.Chrome) -> None:
    opened(browser, pages["strange"], 1280)
    assert ask(browser, "document.scripts.length") == 1, "the page's own"
    assert ask(browser, "document.querySelectorAll('img[onerror], img:not([src^=\"data:\"])').length") == 0
    text = ask(browser, "document.querySelector('main').textContent")
    for name in STRANGE:
        assert name in text
    assert "onerror=alert(3)" in ask(browser, "document.querySelector('#refused').textContent")
    assert "</title>" in ask(browser, "document.querySelector('.facts').textContent")


def test_a_table_can_be_copied(pages: dict[str, Path], browser: webdriver.Chrome) -> None:
    opened(browser, pages["several"], 1280)
    browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    button = browser.find_element(By.CSS_SELECTOR, "#methods .copy")
    button.click()
    said = browser.execute_async_script(
        "const done = arguments[0], button = document.querySelector('#methods .copy');"
        "const wait = () => button.textContent === 'Copy table'"
        " ? setTimeout(wait, 20) : done(button.textContent); wait();"
    )
    assert said == "Copied"
    lines = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])").splitlines()
    assert lines[0].split("\t")[:3] == ["method", "seeds", "edges, mean"]
    assert {line.split("\t")[0] for line in lines[1:]} == {"ecavg", "fedavg", "decoupled"}


def test_prints_show_folded_tables(pages: dict[str, Path], browser: webdriver.Chrome) -> None:
    opened(browser, pages["ecavg"], 1280)
    assert ask(browser, "[...document.querySelectorAll('details')].some(d => d.open)") is False
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 14
    assert ask(browser, "[...document.querySelectorAll('details')].every(d => d.open)") is True
