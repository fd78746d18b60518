"""What people do with the dashboard, done in a real Chromium on a real mesh."""

import re
import signal

import pytest

from tests.dashboard.conftest import api_of
from tests.dashboard.page import AXE, PHONE, Keys, Page
from tests.processes.lab import Lab

FIRST_LOAD_BYTES_MAX = 300_000
RESTART_SECONDS = 8.0

PATIENT = """
import time
import pytest

@pytest.mark.parametrize("n", range({tests}))
def test_step(n):
    time.sleep({seconds})
"""


def test_a_run_that_starts_while_the_page_is_open_is_seen_to_progress(mesh: Lab, page: Page) -> None:
    page.open(api_of(mesh))
    suite = mesh.suite("progress", PATIENT.format(tests=24, seconds=0.15))
    run = mesh.detached(suite, "a")
    row = f"main a[href='#/runs/{run}']"
    page.until(lambda: page.here(row), "the run is on the page")
    seen: set[int] = set()

    def over() -> bool:
        text = page.text("main table")
        seen.update(int(done) for done in re.findall(rf"{run} progress[^%]*?(\d+) of 24", text))
        return bool(re.search(rf"{run} progress\s+passed", text))

    page.until(over, "the run has passed")
    assert len(seen) >= 3, f"only these were seen of its progress: {sorted(seen)}"
    page.until_sees(f"Run {run} passed", "section[aria-label='Just now']")


def test_a_failures_output_is_three_clicks_away(mesh: Lab, page: Page, failed: str) -> None:
    page.open(api_of(mesh))
    page.click(f"main a[href='#/runs/{failed}']")
    page.click(".failure > summary", "test_gain")
    page.until_sees("E       AssertionError: <b>below</b> the datasheet", ".output")
    page.click("summary", "Standard output")
    page.until_sees("<img src=x onerror=alert(1)> was measured", ".output")
    assert page.clicks <= 3
    assert not page.here(".output b, .output img")


def test_all_about_a_test(mesh: Lab, page: Page, failed: str) -> None:
    """Its artifact opens in a browser that sends no token; its history is a click away."""
    page.open(api_of(mesh), f"#/runs/{failed}/tests?search=gain")
    page.until_sees("1 of 15 tests")
    page.click("td.test a, th.test a", "test_gain")
    page.until_sees("the amplifier is warm", ".output")
    href = page.until(lambda: page.find("a", "gain.txt").get_attribute("href"), "the artifact has a link")
    page.click("a", "Its history")
    page.until_sees("1 of 1 run")
    page.driver.get(href)
    page.until_sees("12 dB")


SPEAKING = """
import sys
import time
from pathlib import Path


def told(name):
    for _ in range(6_000):
        if Path({folder!r}, name).exists():
            return
        time.sleep(0.02)


def test_sweep():
    print("\\x1b[32m<b>warm</b>\\x1b[0m up")
    print("10 %\\r20 %", end="")
    told("on")
    for place in range(2_200):
        print(f"\\rpoint {{place:04}} was measured in time")
    told("further")
    print("the filter drifts", file=sys.stderr)
    told("out")
    print("all was measured")


def test_report():
    told("over")
"""

AT_END = "const e = document.querySelector('.lasting'); return e.scrollHeight - e.scrollTop - e.clientHeight < 4"


def test_what_a_running_test_prints_is_seen_as_it_comes(mesh: Lab, page: Page) -> None:
    """The newest of it, at whose end the page stays until the reader leaves it; then the record takes its place."""
    folder = mesh.folder / "speaking"
    folder.mkdir()
    run = mesh.detached(mesh.suite("sweeps", SPEAKING.format(folder=str(folder))), "a")
    page.open(api_of(mesh), f"#/runs/{run}")
    page.click("section[aria-label='Running now'] a", "test_sweep")
    page.until(lambda: page.text(".lasting") == "<b>warm</b> up\n20 %", "its lines, as a terminal has them")
    (folder / "on").touch()
    page.until_sees("point 2199", ".lasting")
    assert not page.sees("point 0000", ".lasting")
    page.until_sees("the beginning is cut", "section[aria-label='What it prints']")
    assert len(page.driver.execute_script("return document.querySelector('.lasting').textContent")) <= 64 * 1024
    assert page.driver.execute_script(AT_END)
    page.find(".lasting").send_keys(Keys.HOME)
    page.until(lambda: not page.find("input[type=checkbox]").is_selected(), "it no longer stays at the end")
    (folder / "further").touch()
    page.until_sees("the filter drifts", ".lasting .stderr")
    assert not page.driver.execute_script(AT_END)
    if AXE.exists():
        assert page.faults() == []
    page.find(".lasting").send_keys(Keys.END)
    page.until(lambda: page.find("input[type=checkbox]").is_selected(), "it stays at the end again")
    (folder / "out").touch()
    page.until(lambda: "The test has passed" in page.driver.execute_script(SAID), "the end is said")
    page.until_sees("all was measured", "section[aria-label='What it said']")
    assert page.driver.switch_to.active_element.tag_name == "h1", "who was in the log is not lost"
    (folder / "over").touch()


def test_what_a_node_ran_and_how_busy_it_was(mesh: Lab, page: Page, failed: str) -> None:
    page.open(api_of(mesh), f"#/runs/{failed}/workers")
    page.click("tbody th a")
    page.until_sees(f"{failed} radio", "section[aria-label='What it ran lately']")
    page.until_sees("CPU", "section[aria-label=Load] .chart")
    page.click("summary", "Hour by hour")
    page.until_sees("%, most", "section[aria-label=Load] td")
    page.until_sees("never away in", "section[aria-label=States]")


def test_a_node_is_drained_and_dies(mesh: Lab, page: Page) -> None:
    mesh.start("d", "--join", mesh.ticket("a"), "--role", "worker", "--label", "name=spare")
    page.open(api_of(mesh), "#/nodes")
    page.until_sees("spare")
    page.click("tbody a", "spare")
    page.click("button", "Drain")
    page.click("dialog button", "Leave it")
    page.click("button", "Drain")
    page.until_sees("It finishes what it runs and gets nothing more", "dialog")
    page.click("dialog button", "Drain it")
    page.until_sees("draining", "section[aria-label=Node]")
    mesh.kill("d")
    page.until_sees("dead", "section[aria-label=Node]")
    page.until_sees("away for", "section[aria-label=States]")
    page.go("#/")
    page.until_sees("1 dead", ".tiles")


def test_a_run_is_cancelled_after_a_question(mesh: Lab, page: Page) -> None:
    run = mesh.detached(mesh.suite("cancelled", PATIENT.format(tests=50, seconds=0.5)), "a")
    page.open(api_of(mesh), f"#/runs/{run}")
    page.click("button", "Cancel")
    page.find("dialog button", "Let it run").send_keys(Keys.ESCAPE)
    page.until(lambda: not page.here("dialog"), "the question is gone")
    page.click("button", "Cancel")
    page.click("dialog button", "Cancel the run")
    page.until_sees("cancelled", "section[aria-label='Where it stands']")


def test_a_restart_of_the_node_loses_no_event(mesh: Lab, page: Page) -> None:
    """What happened while the node was away is told after it is back, though only events tell it."""
    page.open(api_of(mesh))
    page.until_sees("live", ".live")
    mesh.kill("b", signal.SIGKILL)
    run = mesh.detached(mesh.suite("away", PATIENT.format(tests=3, seconds=0.01)), "a")
    page.until_sees("reconnecting", ".live")
    page.until_sees("The node does not answer.")
    mesh.start("b")
    for told in (f"Run {run} away submitted", f"Run {run} passed"):
        page.until_sees(told, "section[aria-label='Just now']")
    page.until(lambda: "live" in page.text(".live") and not page.here(".banner"), "the page is live again")
    mesh.agreed("a", "b", "c")
    # What the browser says of a server that is away is no fault of the page.
    faults = [text for text in page.complaints() if "net::ERR_" not in text]
    assert faults == []


def test_the_first_load_is_small(mesh: Lab, page: Page) -> None:
    page.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    page.open(api_of(mesh))
    page.until(lambda: page.here("svg.graph a"), "the picture is drawn")
    sizes: list[list[object]] = page.driver.execute_script(
        "return performance.getEntries().filter(e => e.transferSize).map(e => [e.name, e.transferSize])"
    )
    assert any("charts.js" in str(name) for name, _ in sizes)
    assert sum(int(str(size)) for _, size in sizes) < FIRST_LOAD_BYTES_MAX, sizes


def test_keys_do_what_the_mouse_does(mesh: Lab, page: Page, failed: str) -> None:
    page.open(api_of(mesh))
    page.press(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Skip to the content"
    page.press(Keys.ENTER)
    assert page.driver.switch_to.active_element.get_attribute("id") == "main"
    page.press("?")
    page.until_sees("Next failure", "dialog")
    page.press(Keys.ESCAPE)
    page.press("gn")
    page.until_sees("Nodes", "h1")
    page.press("/")
    assert page.driver.switch_to.active_element.get_attribute("type") == "search"
    page.go(f"#/runs/{failed}")
    page.find(".failure > summary")
    page.press("j")
    page.press(Keys.ENTER)
    page.until_sees("below</b> the datasheet", ".output")
    page.go(f"#/runs/{failed}/timeline")
    page.find(".gantt .rows").send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: "slot 0" in (page.driver.execute_script(SAID) or ""), "the cursor's test is said")
    page.press(Keys.ENTER)
    page.until_sees("Its history")


SAID = "return [...document.querySelectorAll('.quiet[role=status]')].map(e => e.textContent).join(' ')"


def test_a_page_without_the_token_asks_for_it(mesh: Lab, page: Page) -> None:
    api = api_of(mesh)
    page.driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": api["url"], "storageTypes": "all"})
    page.driver.switch_to.new_window("tab")
    try:
        page.driver.get(api["url"] + "/")
        page.until_sees("needs the node's token")
        page.find("input").send_keys(f"{api['url']}/#token={api['token']}", Keys.ENTER)
        page.until_sees("Who leads")
    finally:
        page.driver.close()
        page.driver.switch_to.window(page.driver.window_handles[0])


PLACES = (
    "#/", "#/runs", "#/runs/RUN", "#/runs/RUN/tests", "#/runs/RUN/timeline", "#/runs/RUN/workers", "#/runs/RUN/why",
    "#/runs/RUN/content", "#/runs/RUN/tests/12", "#/tests?project=radio&test=test_radio.py%3A%3Atest_gain", "#/nodes",
    "#/nodes/NODE", "#/trends", "#/alerts", "#/nowhere",
)  # fmt: skip


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: .ci/browser fetches it from npm")
def test_every_page_is_accessible_in_both_themes_and_fits_a_phone(mesh: Lab, page: Page, failed: str) -> None:
    api = api_of(mesh)
    page.open(api)
    faults: dict[str, list[str] | int] = {}
    for place in PLACES:
        page.go(place.replace("RUN", failed).replace("NODE", api["peer"]))
        page.until(lambda: page.here("main h1") and page.text("main").strip() not in ("", "…"), f"{place} is filled")
        page.until(lambda: not re.search(r"^…$", page.text("main"), re.MULTILINE), f"{place} has all it asked for")
        for theme in ("light", "dark"):
            page.look(theme)
            faults[f"{place} {theme}"] = page.faults()
        page.look("light", PHONE)
        faults[f"{place} phone"] = page.overhang()
        page.look()
    assert {where: found for where, found in faults.items() if found} == {}
