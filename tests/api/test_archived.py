"""A run of long ago, read from its report."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mesh import archived
from mesh.archived import Archive
from mesh.details import Details
from mesh.entries import ContentEntry, ContentKind, NamedContent
from mesh.run_views import ONLY_A_REPORT, argument_of
from mesh.state.verify import SEAL_FILE, record_cid
from mesh.views.tests_table import Wanted
from protocols.codec import encode, encode_block
from protocols.errors import ContentNotFound, UsageError
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Chunk, CollectedTest, Manifest, Outcome, Record, Seal
from tests.fakes.content import cid_of

W, V, C = PeerId("w"), PeerId("v"), PeerId("c")
REPORT = Cid("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")
FOLDER = Cid("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
TESTS = [CollectedTest(f"test_a.py::test_{index}", "test_a.py") for index in range(5)]


@dataclass
class Report:
    """`Content`, as far as a report is read."""

    files: dict[str, bytes] = field(default_factory=dict)

    async def look(self, root: Cid, path: str) -> ContentEntry:
        assert root == REPORT
        if path == "chunks":
            return ContentEntry((REPORT, FOLDER), ContentKind.DIRECTORY, 0)
        if path not in self.files:
            raise UsageError(f"there is no {path!r}")
        return ContentEntry((REPORT, cid_of(self.files[path])), ContentKind.FILE, len(self.files[path]))

    async def entries(self, directory: Cid, most: int) -> list[NamedContent]:
        assert directory == FOLDER
        return [NamedContent(name[7:], cid_of(data), 0) for name, data in self.files.items() if name[:7] == "chunks/"]

    async def get(self, cid: Cid, holders: object = (), timeout: float = 30.0) -> bytes:
        for data in self.files.values():
            if cid_of(data) == cid:
                return data
        raise ContentNotFound(f"nobody has {cid}")

    async def read(self, root: Cid, path: str = "") -> AsyncIterator[bytes]:
        yield await self.get(root)


def record(test: int, outcome: Outcome, worker: PeerId, attempt: int = 1, **more: Any) -> bytes:
    made = Record(TESTS[test].id, outcome, 0.5, 1000.0 + test, worker, 0, attempt, message=f"{test}/{attempt}", **more)
    return encode(made)


def chunk(worker: PeerId, lease: int, *records: tuple[int, bytes]) -> bytes:
    tests = tuple(TestIndex(test) for test, _ in records)
    return encode_block(Chunk(tests, tuple(data for _, data in records), RunId(7), LeaseId(lease), worker))


@pytest.fixture
def report() -> Report:
    """Test 1 failed on W and passed on V; 3 was reused, and 4 skipped by the coordinator C."""
    failed, passed, skipped = Outcome.FAILED, Outcome.PASSED, Outcome.SKIPPED
    reused = record(3, passed, W, reused=REPORT)
    told = [record(0, passed, W), record(1, passed, V, 2), record(2, failed, V), reused, record(4, skipped, C)]
    attempts = (1, 2, 1, 1, 1)
    tests = [{"record": record_cid(data), "attempt": attempt} for data, attempt in zip(told, attempts, strict=True)]
    return Report(
        {
            "chunks/000000.cbor": chunk(V, 12, (1, told[1]), (2, told[2])),
            "chunks/000001.cbor": chunk(W, 11, (0, told[0]), (1, record(1, failed, W))),
            "chunks/000002.cbor": chunk(C, 0, (3, reused), (4, told[4])),
            "report.json": json.dumps({"tests": tests}).encode(),
            SEAL_FILE: encode_block(Seal(RunId(7), C, 1010.0, ((V, "victor"), (W, "willa")), 0, 3, ())),
        }
    )


DOCUMENT = {
    "run": "7", "name": "suite", "project": "suite", "submitter": C, "bundle": REPORT, "priority": 60, "tests": 5,
    "submitted_at": 990.0, "wall_seconds": 20.0, "exit_code": 1, "reason": "", "report": REPORT, "manifest": REPORT,
}  # fmt: skip


def archive(report: Report) -> Archive:
    async def manifest(cid: Cid, holders: tuple[PeerId, ...]) -> Manifest:
        return Manifest(cid, tuple(TESTS))

    return Archive(content=report, manifest=manifest)  # type: ignore[arg-type]


async def test_its_tests_tries_and_timeline(report: Report) -> None:
    views = await archive(report).views(DOCUMENT)
    page = json.loads(await views.look("tests", argument_of(RunId(7))))
    assert page["counts"] == page["counts"] | {"passed": 3, "failed": 1, "skipped": 1, "pending": 0}
    rows = [(row["outcome"], row["worker"], row["name"], row["attempt"]) for row in page["tests"]]
    assert rows == [
        ("passed", W, "willa", 1),
        ("passed", V, "victor", 2),
        ("failed", V, "victor", 1),
        ("passed", None, None, 0),
        ("skipped", None, None, 0),
    ]
    test = json.loads(await views.look("test", argument_of(RunId(7), index=1)))
    tries = [(one["attempt"], one["outcome"], one["worker"]) for one in test["tries"]]
    assert tries == [(1, "failed", W), (2, "passed", V)]
    assert test["tries"][1]["chunk"] == cid_of(report.files["chunks/000000.cbor"])
    timeline = json.loads(await views.look("timeline", argument_of(RunId(7))))
    spans = {(slot["name"], span[0], span[4]) for slot in timeline["slots"] for span in slot["spans"]}
    assert spans == {("willa", 0, 1), ("willa", 1, 1), ("victor", 1, 2), ("victor", 2, 1)}
    assert (timeline["start"], timeline["end"]) == (990.0, 1010.0)


async def test_it_is_read_once(report: Report) -> None:
    kept = archive(report)
    first = await kept.views(DOCUMENT)
    report.files.clear()
    assert await kept.views(DOCUMENT) is first


async def test_what_cannot_be_read_is_said(report: Report) -> None:
    many = {**DOCUMENT, "tests": archived.TESTS_MAX + 1}
    for document, named in ((many, "mesh results 7"), ({**DOCUMENT, "report": None}, "no report")):
        with pytest.raises(UsageError, match=named):
            await archive(report).views(document)
    del report.files[SEAL_FILE]
    views = await archive(report).views(DOCUMENT)
    assert json.loads(await views.look("tests", argument_of(RunId(7))))["tests"][0]["name"] is None


async def test_who_is_told_that_only_a_report_is_left_reads_it(report: Report) -> None:
    class Heard:
        is_fresh = True

        @staticmethod
        def dated(agreed: bool) -> dict[str, Any]:
            return {"agreed": agreed, "as_of": 5.0}

    async def look(view: str, argument: str, hurry: bool) -> bytes:
        return json.dumps(DOCUMENT).encode() if view == "run" else ONLY_A_REPORT

    async def manifest(cid: Cid, holders: tuple[PeerId, ...]) -> Manifest:
        return Manifest(cid, tuple(TESTS))

    details = Details(content=report, replica=lambda: None, look=look, manifest=manifest, feed=Heard())  # type: ignore[arg-type]
    page = json.loads(await details.tests(RunId(7), Wanted(outcome="bad")))
    assert ([row["index"] for row in page["tests"]], page["agreed"]) == ([2], True)
    test = await details.test(RunId(7), 1)
    assert [one["record"]["message"] for one in test["tries"]] == ["1/1", "1/2"]
    assert test["record"]["outcome"] == "passed"
    assert json.loads(await details.timeline(RunId(7)))["lost_chunks"] == 0
