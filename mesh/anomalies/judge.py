"""A run that has finished, judged by those before it: what is to be told, and which alerts are over."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mesh.anomalies.failures import Flaky, Jump, calm, flaky_tests, jump
from mesh.anomalies.hosts import BadHost, bad_hosts
from mesh.anomalies.rules import RUNS_JUDGED_BY, Rules
from mesh.anomalies.slow import Slow, slow_tests
from mesh.anomalies.story import Story, subject_of
from protocols.alerts import AlertKind, Finding, Severity
from protocols.ids import PeerId

TOLD_MAX = 10
"""Slow tests of one run, and flaky ones: beyond them it is no longer about single tests."""

NAMED = 5
"""Tests in a text."""
NAME_CHARACTERS = 200

About = tuple[AlertKind, str]


@dataclass(frozen=True, slots=True)
class Judgement:
    findings: tuple[Finding, ...]
    over: tuple[About, ...]
    """Of the alerts that were active."""


def judge(
    rules: Rules, story: Story, past: Sequence[Story], active: Collection[About], blamed: Collection[PeerId] = ()
) -> Judgement:
    """`past`: the newest first; `active`: what alerts are about now; `blamed`: hosts that have an alert of their own
    for what they do to tests."""
    past = past[:RUNS_JUDGED_BY]
    hosts, sound = bad_hosts(rules, story, past)
    slow, normal = slow_tests(rules, story, past)
    guilty = frozenset(blamed) | {host.peer for host in hosts}
    jumped = jump(rules, story, past, guilty)
    flaky, steady = flaky_tests(rules, story, past, guilty)
    findings = [
        *(_host_finding(host, story) for host in hosts),
        *([_jump_finding(jumped, story)] if jumped is not None else []),
        *(_slow_finding(one, story, len(slow)) for one in slow[:TOLD_MAX]),
        *(_flaky_finding(one, story) for one in flaky[:TOLD_MAX]),
    ]
    project = story.run.project
    fine: list[About] = [(AlertKind.BAD_HOST, peer) for peer in sound]
    fine += [(AlertKind.SLOW_TEST, subject_of(project, test)) for test in normal]
    fine += [(AlertKind.FLAKY_TEST, subject_of(project, test)) for test in steady]
    if calm(rules, story, past):
        fine.append((AlertKind.FAILURES, subject_of(project)))
    told = {(finding.kind, finding.subject) for finding in findings}
    return Judgement(tuple(findings), tuple(about for about in fine if about in active and about not in told))


def _slow_finding(slow: Slow, story: Story, of: int) -> Finding:
    others = f" {of - 1} other tests of this run are slow, too: look for what they share." if of > 1 else ""
    return Finding(
        AlertKind.SLOW_TEST,
        subject_of(story.run.project, slow.test),
        Severity.WARNING,
        f"{_short(slow.test)} took {_seconds(slow.seconds)}, {slow.ratio:.1f} times what it used to",
        f"{_seconds(slow.expected)} were expected on {story.name_of(story.rows[slow.test].worker)} in run"
        f" {story.run.run}, by {slow.runs} runs before; the host's pace is taken into account.",
        f"Compare the run's commit with the one before; look at the test's phases and output.{others}",
        run=story.run.run,
        test=slow.test,
        node=story.rows[slow.test].worker,
    )


def _flaky_finding(flaky: Flaky, story: Story) -> Finding:
    turns = f"changed between good and bad {flaky.flips} times" if flaky.flips else ""
    tries = f"passed only when tried again in {flaky.retried} runs" if flaky.retried else ""
    return Finding(
        AlertKind.FLAKY_TEST,
        subject_of(story.run.project, flaky.test),
        Severity.INFO,
        f"{_short(flaky.test)} is flaky",
        f"In its last {flaky.runs} runs it {' and '.join(part for part in (turns, tries) if part)}.",
        "Look at its history by host and by time; until it is mended, --retries keeps it from failing runs.",
        run=story.run.run,
        test=flaky.test,
    )


def _jump_finding(jumped: Jump, story: Story) -> Finding:
    return Finding(
        AlertKind.FAILURES,
        subject_of(story.run.project),
        Severity.CRITICAL,
        f"{len(jumped.tests)} of {jumped.of} tests of {_short(story.run.project)} that passed before fail in run"
        f" {story.run.run}",
        f"The rate was at most {jumped.before:.2%} in nearly all runs before, and is"
        f" {len(jumped.tests) / jumped.of:.1%}."
        f" Among them: {_some(jumped.tests)}.",
        "Look at what the first failures share: a commit, a fixture, a service that they use.",
        run=story.run.run,
    )


def _host_finding(host: BadHost, story: Story) -> Finding:
    return Finding(
        AlertKind.BAD_HOST,
        host.peer,
        Severity.CRITICAL,
        f"tests fail on {host.name} that pass elsewhere: {host.bad} in run {story.run.run} of"
        f" {_short(story.run.project)}",
        f"{host.bad} of {host.ran} that passed before, or when tried elsewhere, failed there, and"
        f" {host.elsewhere:.1%} on the other hosts; the chance of that is {host.probability:.1g}. Among them:"
        f" {_some(host.tests)}.",
        f"Look at the host (disk, memory, devices, what was installed last); `mesh drain {host.name}` keeps tests away"
        " from it meanwhile.",
        run=story.run.run,
        node=host.peer,
    )


def _some(tests: Sequence[str]) -> str:
    named = ", ".join(_short(test) for test in tests[:NAMED])
    return f"{named} and {len(tests) - NAMED} more" if len(tests) > NAMED else named


def _short(text: str) -> str:
    return text if len(text) <= NAME_CHARACTERS else f"{text[: NAME_CHARACTERS - 1]}…"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
