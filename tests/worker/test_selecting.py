"""What a selection leaves of a manifest, and what pytest tells through `telling`."""

import pytest

from mesh.ports import CollectionFailed
from mesh.worker.pytest_side import telling
from mesh.worker.selecting import select
from protocols.ids import Cid
from protocols.manifests import CollectedTest, Manifest, Selection

NAMES = ("a.py::x", "a.py::y", "b.py::z[1]", "b.py::z[2]", "c.py")


def manifest() -> Manifest:
    notes = telling.pack_notes({"root": "/r", "reports": [], "warnings": [], "deselected": 2, "lines": [1, 2, 3, 3]})
    return Manifest(Cid(""), tuple(CollectedTest(name, name.split("::")[0]) for name in NAMES), notes=notes)


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        (Selection(("b.py::z[2]", "a.py::y", "gone.py::t")), (1, 3)),
        (Selection(("b.py",)), (2, 3)),
        (Selection(("c.py",)), (4,)),
        (Selection(("b.py::z[1]",), first=True), (2, 0, 1, 3, 4)),
        (Selection(("gone.py",), otherwise_all=True), (0, 1, 2, 3, 4)),
    ],
)
def test_left(selection: Selection, left: tuple[int, ...]) -> None:
    found = select(manifest(), selection)
    assert isinstance(found, Manifest)
    assert [test.id for test in found.tests] == [NAMES[i] for i in left]
    notes = telling.unpack_notes(found.notes)
    assert notes["deselected"] == 2 + len(NAMES) - len(left)
    assert notes["lines"][: len(left)] == [[1, 2, 3, 3, None][i] for i in left][: len(notes["lines"])]


def test_nothing_left() -> None:
    found = select(manifest(), Selection(("gone.py::t",)))
    assert isinstance(found, CollectionFailed)
    assert found.exit_code == 5
    assert telling.unpack_notes(found.notes)["deselected"] == 2 + len(NAMES)


def test_sections_that_pytest_repeats_stand_once() -> None:
    text = "".join(f"{i:x}" for i in range(50_000))
    sections = [("Captured stdout setup", text), ("Captured stdout call", "b")]
    reports = [{"when": "setup", "sections": sections[:1]}, {"when": "call", "sections": sections}]
    packed = telling.pack("/r", reports, [])
    assert len(packed) < 1.1 * len(telling.pack("/r", reports[:1], []))
    told = telling.unpack(packed)
    assert [report["sections"] for report in told["reports"]] == [sections[:1], sections]


def test_too_much_is_left_out() -> None:
    text = "".join(chr(0x4E00 + i * 7919 % 20_000) for i in range(200_000))
    assert telling.pack("/r", [{"sections": [("out", text)]}], []) == b""


@pytest.mark.parametrize(("number", "too_much"), [(21, False), (22, True)])
def test_properties_that_are_too_much_are_known_before_they_are_packed(number: int, too_much: bool) -> None:
    properties: list[tuple[str, object]] = [("odd", object()), *[("long", "x" * 2**20)] * number]
    reports = [
        pytest.TestReport("test_a.py::test_a", ("test_a.py", 1, "test_a"), {}, "passed", None, when, (), 0.0, 0.0, 0.0)
        for when in ("setup", "call", "teardown")
    ]
    for report in reports:
        report.user_properties = properties
    assert telling.too_much(reports) == too_much


@pytest.mark.parametrize("data", [b"", b"junk", telling.pack_notes({"a": 1})])
def test_what_nobody_packed(data: bytes) -> None:
    with pytest.raises(ValueError, match="not"):
        telling.unpack(data)
