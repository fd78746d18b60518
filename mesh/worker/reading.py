"""What a slot tells of its tests' inputs, in words again, and where they ran. Pure; whatever comes from a slot is
checked here.

A slot names each entry and each set once and numbers them; most of its tests have the same set, and get the very same
tuple.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from protocols.inputs import Inputs

NAMES_MAX = 1_000_000
"""Entries of one slot process; from then on what its tests read is not known."""
SET_MAX = 50_000
"""Entries of one set."""
ENTRY_CHARACTERS_MAX = 5_000

VARIABLES = (
    *("PYTHONPATH", "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONUTF8"),
    *("PYTHONIOENCODING", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"),
    *("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "TZ", "CI"),
)
"""Of a worker's own variables, those that a verdict depends on, beside what its run declares: what a test asks its
variables for can't be heard, and all of them together are the same nowhere."""
SETTING_CHARACTERS = 32


def setting_of(environment: str, variables: Mapping[str, str]) -> str:
    """What tests run in: the environment of that digest, and the worker's variables."""
    said = [environment, {name: variables[name] for name in VARIABLES if name in variables}]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:SETTING_CHARACTERS]


class SlotInputs:
    """Of one slot process."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sets: dict[int, Inputs] = {}
        self._of: dict[int, Inputs] = {}
        """By the key of a test whose result is to come."""

    def hear(self, told: Mapping[str, Any]) -> None:
        """An "I" frame; `ValueError`, `TypeError` or `KeyError` if it is none of ours."""
        key, number = int(told["key"]), int(told["set"])
        if "numbers" in told:
            self._learn(number, told["names"], told["numbers"])
        found = self._sets.get(number)
        if found is not None:
            self._of = {key: found}

    def take(self, key: int) -> Inputs | None:
        """Those of a test that has ended."""
        return self._of.pop(key, None)

    def _learn(self, number: int, names: Sequence[Any], numbers: Sequence[Any]) -> None:
        for name in names:
            if not isinstance(name, str) or len(name) > ENTRY_CHARACTERS_MAX or ":" not in name:
                raise ValueError("an input is not in words")
        if len(self._names) + len(names) > NAMES_MAX or len(numbers) > SET_MAX:
            return
        self._names += names
        if not all(isinstance(one, int) and 0 <= one < len(self._names) for one in numbers):
            raise ValueError("a set names an entry that is not there")
        self._sets[number] = tuple(self._names[one] for one in numbers)
