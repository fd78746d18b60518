"""report.html in a real Chromium, from a file and without a network: found, filtered, unfolded, and checked by axe."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.reporters.model import Report
from mesh.reporters.page import HTML
from tests.dashboard.page import AXE, MISSING, PHONE, Page, browser
from tests.reporters.samples import many, sample
from tests.reporters.test_reporters import written

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as page:
        yield page


def opened(tab: Page, report: Report, folder: Path) -> None:
    path = folder / "report.html"
    path.write_bytes(written(HTML, report)[""])
    tab.driver.get(path.as_uri())


def test_a_large_run_is_searched_filtered_and_sorted(tab: Page, tmp_path: Path) -> None:
    tab.look()
    opened(tab, many(10_000), tmp_path)
    assert tab.text("#found") == "10,000 of 10,000 tests"
    assert len(tab.driver.find_elements("css selector", "#rows tr")) == 100
    tab.find("#search").send_keys("unit test_100")
    tab.until_sees("40 of 10,000 tests", "#found")
    tab.find("#search").clear()
    tab.find("#search").send_keys("test_")
    tab.click(".chips button", "failed")
    tab.until_sees("48 of 10,000 tests", "#found")
    tab.click("th button", "Time")
    rows = [row.text for row in tab.driver.find_elements("css selector", "#rows td.number")]
    assert tab.find("th[data-sort=seconds]").get_attribute("aria-sort") == "descending"
    assert rows[0].endswith(" ms") or rows[0].endswith(" s")
    tab.click("td.name button")
    tab.until_sees("AssertionError", "#rows .body pre")
    assert tab.complaints() == []


def test_what_a_suite_says_is_text_and_axe_finds_no_fault(tab: Page, tmp_path: Path) -> None:
    for theme, size in (("light", (1280, 900, False)), ("dark", PHONE)):
        tab.look(theme, size)
        opened(tab, sample(), tmp_path)
        assert tab.overhang() <= 0
        tab.click("td.name button", "test_nasty")
        tab.until_sees("mesh get bafyleft", "#rows .body")
        tab.driver.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
        assert not tab.here("img")
        if AXE.exists():
            assert tab.faults() == []
    assert tab.complaints() == []
