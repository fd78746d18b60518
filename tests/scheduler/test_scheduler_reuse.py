"""Which verdicts are taken over: what counts as a change, whom it concerns, and who is never trusted."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from mesh.scheduler.hardware import hardware_class
from mesh.scheduler.reuse import Earlier, Tree, Verdict, candidates, context, index_of, own_file, sample
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid, PeerId, TestIndex
from protocols.inputs import Place, VerdictIndex, pack, packed_set, table, unpack_index, unpack_table, unpacked_sets
from protocols.manifests import CollectedTest, Dependency, Manifest, RunSpec

HERE = Place("environment", "linux x86_64", PeerId("alice"))
FILES = {
    "pyproject.toml": "p1",
    "conftest.py": "c1",
    "lib/__init__.py": "i1",
    "lib/core.py": "k1",
    "lib/data/a.json": "a1",
    "tests/test_a.py": "ta1",
    "tests/test_b.py": "tb1",
}
A = ("file:tests/test_a.py", "file:lib/core.py", "file:lib/__init__.py", "name:json", "list:lib/data")
B = ("file:tests/test_b.py", "file:lib/data/a.json", "none:lib/data/b.json")
INPUTS = {"tests/test_a.py::one": A, "tests/test_a.py::two": A, "tests/test_b.py::three": B}


def tree(**changes: str) -> Tree:
    """`changes` by path, "/" as "__" and "." as "_dot_"; an empty text: the file is gone."""
    files = {**FILES, **changes}
    return Tree({path: Cid(cid) for path, cid in files.items() if cid})


def manifest(*tests: str) -> Manifest:
    listed = tuple(CollectedTest(test, test.partition("::")[0]) for test in tests or INPUTS)
    return Manifest(Cid("bundle"), listed, setting="environment")


def earlier(
    lied: Mapping[str, str] = MappingProxyType({}),
    *,
    inputs: dict[str, tuple[str, ...]] = INPUTS,
    place: Place = HERE,
    refused: tuple[int, ...] = (),
) -> Earlier:
    verdicts = [
        (TestIndex(number), Verdict(tree().settled(inputs[test]), place, 1000 * number, Cid(f"record{number}")))
        for number, test in enumerate(inputs)
        if number not in refused
    ]
    index = index_of(Cid("manifest"), "same", tree(), verdicts, map(TestIndex, refused), lied.items())
    return Earlier(unpack_index(pack(index)), tuple(inputs))


def taken(then: Earlier, now: Tree, *allowed: str, hardware: str = HERE.hardware) -> list[str]:
    listed = manifest()
    found = candidates(listed, [then], now, "same", (hardware,), allowed)
    return [listed.tests[number].id.partition("::")[2] for number in sorted(found)]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, ["one", "two", "three"]),
        ({"README": "new"}, ["one", "two", "three"]),
        ({"lib/core.py": "k2"}, ["three"]),
        ({"lib/core.py": ""}, ["three"]),
        ({"tests/test_b.py": "tb2"}, ["one", "two"]),
        ({"lib/data/a.json": "a2"}, ["one", "two"]),
        ({"lib/data/b.json": "new"}, []),  # it was looked for, and is one more in a directory that was listed
        ({"lib/data/sub/c.json": "new"}, ["three"]),
        ({"json.py": "new"}, ["three"]),  # an import could find it now
        ({"elsewhere/json/__init__.py": "new"}, ["three"]),
        ({"lib/core/__init__.py": "new"}, ["three"]),
        ({"lib/core.cpython-311.so": "new"}, ["three"]),
        ({"lib.py": "new"}, ["three"]),
        ({"lib/other.py": "new", "tests/test_c.py": "new"}, ["one", "two", "three"]),
    ],
)
def test_what_changed_is_run_by_those_who_read_it(changes: dict[str, str], kept: list[str]) -> None:
    assert taken(earlier(), tree(**changes)) == kept


def test_a_verdict_holds_where_it_was_made() -> None:
    assert taken(earlier(), tree(), hardware="linux aarch64") == []
    assert taken(earlier(place=dataclasses.replace(HERE, setting="other")), tree()) == []
    then = earlier()
    assert candidates(manifest(), [then], tree(), "other", (HERE.hardware,), ()) == {}


@pytest.mark.parametrize("kind", ["network", "files", "processes"])
def test_what_was_not_seen_is_never_trusted_unless_it_is_allowed(kind: str) -> None:
    then = earlier(inputs={**INPUTS, "tests/test_b.py::three": (*B, f"{kind}:something")})
    assert taken(then, tree()) == ["one", "two"]
    assert taken(then, tree(), kind) == ["one", "two", "three"]


@pytest.mark.parametrize("name", ["file:left/behind", "none:lib/core.py"])
def test_a_file_that_is_not_as_the_bundle_has_it_counts_as_one_outside(name: str) -> None:
    then = earlier(inputs={**INPUTS, "tests/test_b.py::three": (*B, name)})
    assert taken(then, tree()) == ["one", "two"]
    assert taken(then, tree(), "files") == ["one", "two", "three"]


def test_the_newest_verdict_counts_and_a_bad_one_shuts_out_the_older_ones() -> None:
    newer = earlier(refused=(1,))
    found = candidates(manifest(), [newer, earlier()], tree(), "same", (HERE.hardware,), ())
    assert sorted(found) == [0, 2]
    changed = earlier(inputs={**INPUTS, "tests/test_a.py::one": (*A, "none:lib/gone.py", "file:lib/new.py")})
    found = candidates(manifest(), [changed, earlier()], tree(), "same", (HERE.hardware,), ())
    assert found[TestIndex(0)].inputs == A, "of the run before, whose inputs are those of now"


def test_a_test_that_lied_is_not_trusted_until_its_file_changes() -> None:
    lied = earlier({"tests/test_b.py::three": tree().state(own_file("tests/test_b.py::three"))})
    assert taken(lied, tree()) == ["one", "two"]
    again = earlier(dict(lied.index.distrusted), inputs={**INPUTS, "tests/test_b.py::three": ("file:lib/__init__.py",)})
    assert taken(again, tree(**{"tests/test_b.py": "tb2"})) == ["one", "two", "three"]


def test_a_test_that_waits_for_others_is_run() -> None:
    listed = dataclasses.replace(manifest(), dependencies=(Dependency(1, 1, 0, 1),))
    assert sorted(candidates(listed, [earlier()], tree(), "same", (HERE.hardware,), ())) == [0, 2]


def test_a_sample_is_the_same_for_the_same_seed_and_never_empty() -> None:
    tests = {TestIndex(number): f"test{number}" for number in range(500)}
    one = sample(tests, "run 1")
    assert (len(one), one) == (10, sample(dict(reversed(tests.items())), "run 1"))
    assert one != sample(tests, "run 2")
    assert sample({TestIndex(7): "test7"}, "x") == [7]
    assert sample({}, "x") == []


def test_the_context_is_what_the_run_says_and_not_who_says_it() -> None:
    spec = RunSpec(Cid("b"), "suite", "suite", PeerId("me"), ("-q",), variables=(("B", "1"), ("A", "2")))
    same = dataclasses.replace(
        spec, bundle=Cid("other"), submitter=PeerId("you"), priority=1, variables=(("A", "2"), ("B", "1"))
    )
    assert context(spec) == context(same)
    for change in ({"arguments": ("-v",)}, {"variables": ()}, {"python": "3.12"}, {"requires": "gpu"}, {"after": (1,)}):
        assert context(dataclasses.replace(spec, **change)) != context(spec)


def test_hardware_is_told_once_a_node_knows_it() -> None:
    has: dict[str, Any] = {
        "os": "linux",
        "arch": "x86_64",
        "gpu": ({"name": "NVIDIA H200", "index": 0}, {"name": "NVIDIA H200"}),
    }
    assert hardware_class(has) == "linux x86_64, NVIDIA H200"
    assert hardware_class({**has, "gpu": ()}) == "linux x86_64"
    assert hardware_class({**has, "probing": True}) == ""


def test_tables_and_indexes_survive_their_packing_and_junk_does_not() -> None:
    made = table("environment", "linux", [A, None, A, B])
    assert made.of == (0, -1, 0, 1)
    assert unpack_table(pack(made)) == made
    assert [set(one) for one in unpacked_sets(made.names, made.sets)] == [set(A), set(B)]
    for junk in (b"", b"junk", pack(made)[:-3]):
        with pytest.raises(RemoteProtocolError):
            unpack_table(junk)
    with pytest.raises(RemoteProtocolError, match="damaged"):
        unpacked_sets(("file:a",), [packed_set([0, 1])])
    with pytest.raises(ValueError, match="differ in length"):
        VerdictIndex(Cid("m"), "", ("file:a",), (), (), (), (), (), (), (), ())
