"""uv's own words as one sentence, and whose fault they mean. Taken from uv 0.9 to 0.13."""

import pytest

from mesh.worker.uv import SENTENCE_CHARACTERS_MAX, BuildFailed, HostFailed, failure, sentence

LOCK = """\
error: Failed to parse `uv.lock`
  cause: TOML parse error at line 1, column 3
           |
         1 | [[[
           |   ^
         unquoted keys cannot be empty
"""
UNSOLVED = """\
Using Python 3.11.7 environment at: /home/environments/.building-1-0
  × No solution found when resolving dependencies:
  ╰─▶ Because only hello==3.1 is available and you require hello==9, we can
      conclude that your requirements are unsatisfiable.

      hint: something else
"""
NETWORK = """\
error: Failed to fetch: `http://127.0.0.1:9/simple/hello/`
  Caused by: Request failed after 3 retries
  Caused by: error sending request for url (http://127.0.0.1:9/simple/hello/)
"""
OLDER = "error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.\n"
COMPILES_NOT = """\
  × Failed to build `lxml==5.0`
  ├─▶ The build backend returned an error
  ╰─▶ Call to `setuptools.build_meta.build_wheel` failed (exit status: 1)
"""
OWN = "  × Failed to build `demo @ file:///home/bundles/bafy/demo`\n  ╰─▶ The build backend returned an error\n"
PYTHON = (
    "error: The requested interpreter resolved to Python 3.11.7, which is incompatible with the project's Python "
    "requirement: `>=3.13`\n"
)
ROOT = "/home/bundles/bafy/demo"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (LOCK, "Failed to parse `uv.lock`: TOML parse error at line 1, column 3 unquoted keys cannot be empty"),
        (UNSOLVED, "No solution found when resolving dependencies: Because only hello==3.1 is available and you "
         "require hello==9, we can conclude that your requirements are unsatisfiable."),
        (NETWORK, "Failed to fetch: `http://127.0.0.1:9/simple/hello/`: Request failed after 3 retries: error sending "
         "request for url (http://127.0.0.1:9/simple/hello/)"),
        ("nothing that it knows", ""),
        ("", ""),
        ("error: " + "x" * 1000, "x" * (SENTENCE_CHARACTERS_MAX - 1) + "…"),
    ],
)  # fmt: skip
def test_sentences(output: str, said: str) -> None:
    assert sentence(output) == said


@pytest.mark.parametrize(
    ("output", "code", "kind", "exit_code"),
    [
        (LOCK, 2, BuildFailed, 4),
        (UNSOLVED, 1, BuildFailed, 4),
        (OLDER, 1, BuildFailed, 4),
        (OWN, 1, BuildFailed, 4),
        (NETWORK, 1, HostFailed, 12),
        (COMPILES_NOT, 1, HostFailed, 12),
        (PYTHON, 2, HostFailed, 10),
        ("error: No space left on device (os error 28)", 2, HostFailed, 12),
        ("", -9, HostFailed, 12),
    ],
)
def test_whose_fault_it_is(output: str, code: int, kind: type[BuildFailed | HostFailed], exit_code: int) -> None:
    failed = failure("sync", code, output, ROOT)
    assert (type(failed), failed.exit_code) == (kind, exit_code)
    assert ROOT not in failed.output
    assert str(failed).startswith("the uv environment can't be built: ")
    assert "\n" not in str(failed)
