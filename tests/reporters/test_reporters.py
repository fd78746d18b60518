"""Each reporter, on a report in memory: what it writes is read back by what would read it elsewhere."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import junitparser
import pytest
import xmlschema
import xunitparser
from markdown_it import MarkdownIt

from mesh.reporters.github import GITHUB, annotations
from mesh.reporters.gitlab import GITLAB
from mesh.reporters.jenkins import JENKINS
from mesh.reporters.markdown import BYTES_MAX, MARKDOWN, block, code, summary
from mesh.reporters.model import Appended, Printed, Report, Reporter, Written, line_of, place
from mesh.reporters.page import HTML
from mesh.reporters.plain import JSON, JUNIT
from mesh.reporters.reportlog import REPORTLOG
from mesh.reporters.timeline import WIDTH, lanes
from protocols.manifests import Outcome
from tests.reporters.samples import BEGAN, LAPTOP, TRACE, many, record, report_of, sample

SCHEMA = Path(__file__).parent / "data" / "junit-10.xsd"
"""Jenkins' schema, as pytest 9.2.0 has it to test its own xunit2 output by (testing/example_scripts; MIT licence)."""


def written(reporter: Reporter, report: Report) -> dict[str, bytes]:
    """Its files by their names."""
    files = {}
    for output in reporter.outputs(report):
        if isinstance(output, Written):
            files[output.name] = b"".join(map(encoded, output.pieces))
    return files


def encoded(piece: str | bytes) -> bytes:
    return piece.encode("utf-8", "backslashreplace") if isinstance(piece, str) else piece


def strict() -> xmlschema.XMLSchema10:
    return xmlschema.XMLSchema10(SCHEMA)


def with_properties() -> xmlschema.XMLSchema10:
    """With what pytest's `record_property` adds: properties of a `testcase`."""
    text = SCHEMA.read_text().replace(
        '<xs:element ref="skipped"/>', '<xs:element ref="properties"/><xs:element ref="skipped"/>'
    )
    return xmlschema.XMLSchema10(text)


def test_jenkins_form_is_valid_to_the_letter_and_is_read_by_others(tmp_path: Path) -> None:
    (data,) = written(JENKINS, sample()).values()
    strict().validate(data.decode())
    (tmp_path / "jenkins.xml").write_bytes(data)
    suites = list(junitparser.JUnitXml.fromfile(str(tmp_path / "jenkins.xml")))
    assert [(suite.name, suite.tests, suite.failures, suite.errors) for suite in suites] == [
        ("tests.test_a", 3, 1, 1), ("tests.test_b", 4, 0, 0), ("after the last test", 1, 0, 1),
    ]  # fmt: skip
    assert b"[[PROPERTY|speed=9 &lt; 10]]" in data
    assert b'<rerunFailure message="first" type="failed">' in data
    assert b'<flakyError message="host" type="error">' in data
    empty = written(JENKINS, report_of([]))[""]
    strict().validate(empty.decode())


def test_junit_is_valid_but_for_pytests_own_properties_and_two_readers_agree(tmp_path: Path) -> None:
    """Without `record_property` pytest's xunit2 is valid to the letter; with it, properties stand where ours do."""
    data = written(JUNIT, sample())[""]
    with_properties().validate(data.decode())
    assert not strict().is_valid(data.decode())
    (tmp_path / "junit.xml").write_bytes(data)
    (first,) = junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    with (tmp_path / "junit.xml").open("rb") as file:
        second, _ = xunitparser.parse(file)
    sorts = {"Skipped": "skipped", "Failure": "failure", "Error": "error"}
    one = {case.name: sorts[type(case.result[0]).__name__] if case.result else "success" for case in first}
    other = {case.methodname: case.result for case in second}
    assert one == other
    assert sorted(one.values()) == ["error", "failure", "skipped", "skipped", "success", "success", "success"]


def test_pytest_itself_puts_properties_there(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a(record_property): record_property('a', 1)\n")
    flags = ["-q", "-p", "no:cacheprovider", "--junitxml=junit.xml", "-c", "/dev/null", "--rootdir=."]
    plain = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run([sys.executable, "-m", "pytest", *flags], cwd=tmp_path, env=plain, check=True, capture_output=True)
    assert not strict().is_valid(str(tmp_path / "junit.xml"))
    with_properties().validate(str(tmp_path / "junit.xml"))


def test_commands_are_no_tests_of_a_file() -> None:
    ran = [record("make a/b.py::c"), record("make d", Outcome.FAILED, message="exit code 2")]
    report = report_of(ran, head={"command": "make {}"})
    (data,) = written(JENKINS, report).values()
    strict().validate(data.decode())
    assert data.count(b"<testsuite ") == 1
    assert b'name="make a/b.py::c"' in data
    assert b"file=" not in written(GITLAB, report)["junit.xml"]


def test_gitlab_gets_files_and_faults_below_its_checkout(tmp_path: Path) -> None:
    files = written(GITLAB, sample(root="/builds/x/sub", variables={"CI_PROJECT_DIR": "/builds/x"}))
    (tmp_path / "junit.xml").write_bytes(files["junit.xml"])
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert {case._elem.get("file") for case in list(suite)[:-1]} == {"sub/tests/test_a.py", "sub/tests/test_b.py"}
    faults = json.loads(files["codequality.json"])
    assert [(one["check_name"], one["severity"], one["location"]) for one in faults] == [
        ("mesh.failed", "major", {"path": "sub/tests/test_a.py", "lines": {"begin": 14}}),
        ("mesh.error", "major", {"path": "sub/tests/test_a.py", "lines": {"begin": 1}}),
        ("mesh.flaky", "minor", {"path": "sub/tests/test_b.py", "lines": {"begin": 1}}),
    ]
    assert len({one["fingerprint"] for one in faults}) == 3
    assert all("\n" not in one["description"] for one in faults)


def test_github_gets_annotations_and_a_summary() -> None:
    variables = {"GITHUB_WORKSPACE": "/w/repo", "GITHUB_STEP_SUMMARY": "/tmp/summary"}
    report = sample(root="/w/repo/sub", variables=variables)
    printed, appended, _ = GITHUB.outputs(report)
    assert isinstance(printed, Printed)
    assert isinstance(appended, Appended)
    lines = printed.text.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::error", "::warning", "::error"]
    assert lines[0].startswith("::error file=sub/tests/test_a.py,line=14,title=tests/test_a.py%3A%3Atest_bad::assert")
    assert "%0A" in lines[0]
    assert lines[2].endswith("::bad on rig only")
    assert appended.path == "/tmp/summary"
    bad = report_of([record(f"t.py::test_{n}", Outcome.FAILED) for n in range(30)])
    assert [line.partition(" ")[0] for line in annotations(bad)] == ["::error"] * 10 + ["20"]


def test_report_log_is_read_back_by_pytest() -> None:
    (data,) = written(REPORTLOG, sample()).values()
    lines = [json.loads(line) for line in data.splitlines()]
    assert lines[0] == {"pytest_version": "9.2.0", "$report_type": "SessionStart"}
    assert lines[-1] == {"exitstatus": 1, "$report_type": "SessionFinish"}
    reports = [pytest.TestReport._from_json(line) for line in lines[1:-1]]
    assert {report.when for report in reports} == {"setup", "call", "teardown"}
    calls = {report.nodeid: report for report in reports if report.when == "call"}
    assert calls["tests/test_a.py::test_bad"].failed
    assert calls["tests/test_a.py::test_bad"].longrepr == TRACE
    assert calls["tests/test_b.py::TestX::test_skip"].longrepr[2] == "Skipped: later"
    assert calls["tests/test_b.py::test_xfail"].wasxfail == "known"
    assert next(report for report in reports if report.when == "teardown").user_properties == [["speed", "9 < 10"]]


def test_documents_of_the_report_are_copied() -> None:
    report = sample()
    assert json.loads(written(JSON, report)[""])["counts"]["failed"] == 1
    assert written(JUNIT, report)[""] == report.files.read("junit.xml")
    assert written(JUNIT, Report("bafy", type(report.files)({}))) == {}  # type: ignore[call-arg]


def test_markdown_tells_failures_first_and_no_suite_writes_markup() -> None:
    (data,) = written(MARKDOWN, sample()).values()
    text = data.decode()
    assert text.startswith("## ❌ `suite`: 1 failed, 1 error, 2 passed, 1 skipped, 1 xfailed, 1 xpassed in 3.5 s")
    assert markup(text) <= {"<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>"}
    assert "bad on `rig` only" in text
    assert "after the last test on `rig`" in text
    assert "\x1b" not in text


def markup(text: str) -> set[str]:
    """The HTML tags that a reader of GitHub's Markdown finds."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    held = [token for each in tokens for token in (each, *(each.children or ()))]
    html = [token.content for token in held if token.type in ("html_block", "html_inline")]
    return {tag for content in html for tag in re.findall("<[^>]*>", content)}


def test_markdown_is_bounded() -> None:
    loud = [record(f"t.py::test_{n}", Outcome.FAILED, longrepr="é" * 20_000) for n in range(600)]
    text = summary(report_of(loud))
    assert len(text.encode()) <= BYTES_MAX + 100
    assert "and 100 more" in text


@pytest.mark.parametrize("text", ["", "`", "a``b", "`a`", "a|b", "\n"])
def test_code_ends_where_the_text_does(text: str) -> None:
    span = code(text)
    fence = re.match("`+", span)
    assert fence is not None
    assert span.endswith(fence[0])
    assert not re.search(rf"(?<!`)`{{{len(fence[0])}}}(?!`)", span[len(fence[0]) : -len(fence[0])])
    assert markup(f"{code('<b>' + text)}\n\n{block('```</b>' + text)}") == set()


class Parsed(HTMLParser):
    """Which elements a page has, and what its data block holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.foreign: list[str] = []
        self._data = False
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._data = ("type", "application/json") in attributes
        for name, value in attributes:
            if name.startswith("on") or (name in ("src", "href") and not (value or "").startswith(("#", "data:"))):
                self.foreign.append(f"{name}={value}")

    def handle_data(self, data: str) -> None:
        if self._data:
            self.data += data

    def handle_endtag(self, tag: str) -> None:
        self._data = False


def test_the_page_holds_all_and_nothing_of_a_suite_is_markup() -> None:
    text = written(HTML, sample())[""].decode()
    page = Parsed(text)
    assert page.foreign == []
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert "default-src 'none'" in text
    data = json.loads(page.data)
    assert len(data["tests"]) == 7
    assert data["workers"] == ["rig", "laptop <2>"]
    nasty = next(place for place, row in enumerate(data["tests"]) if "nasty" in row[0])
    assert data["details"][str(nasty)][-1] == ["Artifacts", "mesh get bafyleft -o DIR"]
    assert "10,000 characters left out" in text
    assert text.index("tests/test_a.py::test_bad") < text.index("All tests")


def test_the_page_of_a_large_run_is_bounded() -> None:
    text = written(HTML, many(10_000))[""].decode()
    assert len(text) < 2_000_000
    assert len(json.loads(Parsed(text).data)["tests"]) == 10_000


def test_the_page_of_a_run_that_collected_nothing() -> None:
    head = {"exit_code": 2, "state": "error", "reason": "1 error", "workers": []}
    text = written(HTML, report_of([], head=head, others={"collection.txt": b"E   <SyntaxError>"}))[""].decode()
    assert "E   &lt;SyntaxError&gt;" in text
    assert "No test ran" in text


def test_lanes_are_slots_and_thin_bars_are_one() -> None:
    ran = [record(f"t.py::test_{n}", duration=0.0001, started=BEGAN + n / 1000) for n in range(1000)]
    ran += [record("t.py::bad", Outcome.FAILED, started=BEGAN + 0.5, duration=0.0001)]
    ran += [record("t.py::long", started=BEGAN + 1, duration=9.0, worker=LAPTOP, slot=3)]
    found, seconds = lanes(report_of(ran))
    assert list(found) == [("laptop <2>", 3), ("rig", 0)]
    assert seconds == pytest.approx(10.0)
    assert [bar.outcome for bar in found["rig", 0]] == ["passed", "failed"]
    (long,) = found["laptop <2>", 3]
    assert (long.start, long.end) == (pytest.approx(WIDTH / 10), pytest.approx(WIDTH))


@pytest.mark.parametrize(
    ("root", "below", "path"),
    [
        ("/w/repo/sub", "/w/repo", "sub/t.py"),
        ("/w/repo", "/w/repo/", "t.py"),
        ("/w/other", "/w/repo", "t.py"),
        ("/w/repository", "/w/repo", "t.py"),
        ("", "", "t.py"),
    ],
)
def test_places_are_below_the_checkout(root: str, below: str, path: str) -> None:
    assert place(report_of([], root=root), "t.py::test_a", below) == path


def test_the_line_is_the_last_of_the_tests_own_file() -> None:
    told = {"test": "a/t.py::x", "longrepr": "a/t.py:3: in x\n    f()\nb.py:9: Error\na/t.py:x: no\nsome a/t.py:7: no"}
    assert line_of(told) == 3
    assert line_of({"test": "a/t.py::x", "longrepr": ""}) is None
