"""Requirement expressions: what they mean, and what is said when they are wrong or not met."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.scheduler.requirements import EXPRESSION_CHARACTERS_MAX, parse, show, unmet
from protocols.errors import UsageError

GIB = 2**30
LAB = {
    "cpu.cores": 8,
    "memory": 32 * GIB,
    "os": "linux",
    "python": "3.11.7",
    "pythons": ("3.11.7", "3.12.1"),
    "browsers": ("firefox",),
    "arch": "x86_64",
    "secure": True,
    "flaky": False,
    "latency": 0.02,
    "disk": {"free": 100 * GIB, "kind": "nvme"},
    "gpu": ({"cuda": "12.4", "memory": 6 * GIB, "name": "A"}, {"cuda": "11.8", "memory": 24 * GIB, "name": "B"}),
    "camera": (),
    "model": "v1-rc",
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "cpu.cores >= 8",
        "cpu.cores == 8 and memory > 16GiB",
        "memory >= 32 GiB",
        "memory <= 34.4GB",
        "latency < 50ms",
        "latency >= 0.02s",
        "os == linux",
        "os == 'linux'",
        'os != "darwin"',
        "os in (linux, darwin)",
        "firefox in browsers",
        "'3.12' in pythons",
        "x86 in arch",
        "secure",
        "secure == true",
        "flaky == false",
        "not flaky",
        "python >= 3.11",
        "python < 3.12",
        "python == 3.11",
        "python <= 3.11",
        "python != 3.11.8",
        "python < 3.11.10",
        "model == v1-rc",
        "disk.free > 1GiB and disk.kind == nvme",
        "gpu",
        "gpu.cuda >= 12",
        "gpu.memory >= 8GiB",
        "gpu.name == A and gpu.cuda >= 12",
        "(gpu.cuda >= 12 or gpu.memory >= 8GiB) and gpu.name == B",
        "gpu.cuda >= 13 or gpu.memory >= 20GiB",
        "not (gpu.cuda >= 13)",
        "not gpu.cuda >= 12 and gpu.memory >= 8GiB",
        "not camera",
        "not camera.zoom",
        "cpu.cores>=4 and(os==linux)",
    ],
)
def test_met(text: str) -> None:
    assert unmet(parse(text), LAB) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("python >= 3.12", "has python 3.11.7, not >= 3.12"),
        ("python > 3.11", "has python 3.11.7, not > 3.11"),
        ("cpu.cores > 8", "has cpu.cores 8, not > 8"),
        ("memory >= 64GiB", "has memory 32.0GiB, not >= 64GiB"),
        ("gpu.cuda >= 12 and gpu.memory >= 8GiB", "has no single gpu with gpu.cuda >= 12 and gpu.memory >= 8GiB"),
        ("gpu.memory >= 40GiB", "has no single gpu with gpu.memory >= 40GiB"),
        ("gpu.vendor == nvidia", "has no gpu.vendor"),
        ("camera.zoom > 2", "has no camera"),
        ("camera", "has no camera"),
        ("tpu", "has no tpu"),
        ("tpu.cores > 1", "has no tpu"),
        ("tpu.cores > 1 or os == darwin", "has no tpu and has os linux, not == darwin"),
        ("not secure", "does have secure"),
        ("not os == linux", "does have os == linux"),
        ("not gpu.cuda >= 12", "does have gpu.cuda >= 12"),
        ("flaky", "has no flaky"),
        ("chrome in browsers", "has no chrome in browsers"),
        ("arm in arch", "has arch x86_64"),
        ("os in (windows, darwin)", "has os linux, not in (windows, darwin)"),
        ("os > 5", "has os linux, not > 5"),
        ("cpu.cores == many", "has cpu.cores 8, not == many"),
        ("secure > 0", "has secure True, not > 0"),
        ("browsers == firefox", "has browsers ('firefox',), not == firefox"),
    ],
)
def test_unmet(text: str, reason: str) -> None:
    assert unmet(parse(text), LAB) == reason


def test_one_device_reasons_are_that_devices() -> None:
    lab = {"gpu": ({"memory": 6 * GIB, "cuda": "12.0"},)}
    assert unmet(parse("gpu.cuda >= 12 and gpu.memory >= 8GiB"), lab) == "has gpu.memory 6.0GiB, not >= 8GiB"


def test_two_kinds_of_devices() -> None:
    lab = {"gpu": ({"n": 1}, {"n": 2}), "camera": ({"n": 3}, {"n": 4})}
    assert unmet(parse("gpu.n == 2 and camera.n == 4"), lab) == ""
    assert unmet(parse("gpu.n == 2 and camera.n == 5"), lab)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu.cuda >=", "expected a value, found its end at position 12"),
        ("gpu >= and os", "expected a value, found 'and' at position 8"),
        ("and gpu", "expected a capability's name, found 'and' at position 1"),
        ("(gpu", "expected ')', found its end at position 5"),
        ("gpu)", "expected 'and', 'or' or the end, found ')' at position 4"),
        ("gpu cuda", "expected 'and', 'or' or the end, found 'cuda' at position 5"),
        ("gpu == 'x", '"\'" is not understood at position 8'),
        ("gpu ~ 3", "'~' is not understood at position 5"),
        ("8GiB", "expected a capability's name, found '8GiB' at position 1"),
        ("'gpu' == 1", "expected a capability's name, found \"'gpu'\" at position 1"),
        ("os in linux darwin", "expected 'and', 'or' or the end"),
        ("os in (linux", "expected ',' or ')', found its end at position 13"),
        ("os in", "expected a capability's name or '(', found its end"),
        ("3 in (1, 2)", "expected a capability's name, found '3' at position 1"),
        ("gpu = 3", "'=' is not understood at position 5"),
        ("(" * 30 + "gpu", "nested too deeply at position 21"),
        ("not " * 30 + "gpu", "nested too deeply"),
    ],
)
def test_wrong(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"requirement {text!r}: ")
    assert said in str(caught.value)


def test_too_long() -> None:
    with pytest.raises(UsageError, match="1000 characters"):
        parse("a" * (EXPRESSION_CHARACTERS_MAX + 1))


@given(st.text(st.sampled_from(list("abgpu.12=<>!() ,'\"in~ort")), max_size=40))
def test_any_text_parses_or_says_why(text: str) -> None:
    try:
        expression = parse(text)
    except UsageError:
        return
    assert isinstance(unmet(expression, LAB), str)


NAMES = st.sampled_from(["cpu.cores", "gpu.n", "os"])
TERMS = st.builds("{} {} {}".format, NAMES, st.sampled_from(["==", ">=", "<"]), st.integers(0, 3))
EXPRESSIONS = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_shown_expressions_mean_the_same(text: str) -> None:
    expression = parse(text)
    assert expression is not None
    assert parse(show(expression)) == expression


@given(EXPRESSIONS, st.integers(0, 3), st.integers(0, 3))
def test_on_one_device_the_logic_is_pythons(text: str, cores: int, n: int) -> None:
    lab = {"cpu.cores": cores, "gpu": ({"n": n},), "os": n}
    python = text.replace("cpu.cores", str(cores)).replace("gpu.n", str(n)).replace("os", str(n))
    assert (unmet(parse(text), lab) == "") == eval(python)
