"""`make compare-suites`: the shown suites by `pytest --mesh`, on a node of two slots, and serially, test by test.

Both write pytest's own junit.xml; what differs is printed by name. A test that fails in one of two serial runs, too, is
the suite's own affair, and is told as such.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import PYTEST, RUN_SECONDS_MAX, node
from benchmarks.suites import SHOWN, Suite

DIFFERENCES_SHOWN_MAX = 20


def outcomes(command: Sequence[str], folder: Path) -> tuple[dict[str, list[str]], float, str]:
    """What came of each test in junit.xml (who fails and errs has two entries); seconds; the last line."""
    with tempfile.TemporaryDirectory(prefix="mesh-outcomes-") as name:
        xml = Path(name) / "junit.xml"
        began = time.monotonic()
        done = subprocess.run(
            [*command, f"--junitxml={xml}"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
        )
        seconds = time.monotonic() - began
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        found: dict[str, list[str]] = {}
        for case in ET.parse(xml).iter("testcase") if xml.exists() else ():
            said = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            test = f"{case.get('classname')}::{case.get('name')}".replace(f"{folder}/", "")  # as a mesh names it
            found.setdefault(test, []).extend(said or ["passed"])
        return {test: sorted(said) for test, said in found.items()}, seconds, lines[-1].strip("= ") if lines else ""


def differing(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, str]:
    return {
        test: f"{one.get(test, 'not there')} here, {other.get(test, 'not there')} there"
        for test in sorted(one.keys() | other.keys())
        if one.get(test) != other.get(test)
    }


def compare(suite: Suite, cache: Path) -> bool:
    folder = suite.root(cache)
    serial, took, said = outcomes([*PYTEST, *suite.options], folder)
    with node() as (home, _):
        ours, ours_took, ours_said = outcomes([*PYTEST, "--mesh", f"--mesh-home={home}", *suite.options], folder)
    found = differing(ours, serial)
    if found:
        again, _, _ = outcomes([*PYTEST, *suite.options], folder)
        unsteady = differing(again, serial).keys()
        for test in [test for test in found if test in unsteady]:
            print(f"  {test}: differs between two serial runs, too")
            del found[test]
    verdict = "EQUAL" if serial and not found else f"{len(found)} DIFFER"
    print(f"{suite.name:<10} {len(serial):>6} tests: {verdict}", flush=True)
    print(f"  serial {took:.1f} s: {said}\n  ours {ours_took:.1f} s: {ours_said}", flush=True)
    for test, how in list(found.items())[:DIFFERENCES_SHOWN_MAX]:
        print(f"  {test}: {how}")
    return bool(serial) and not found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=" ".join(suite.name for suite in SHOWN))
    parser.add_argument("--cache", type=Path, required=True, help="where suites are unpacked")
    options = parser.parse_args()
    cache = options.cache.resolve()
    chosen = [suite for suite in SHOWN if suite.name in options.suites or not options.suites]
    equal = [compare(suite, cache) for suite in chosen]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
