"""The shapes of the API's documents, as JSON Schema: what `openapi.py` refers to. More fields may be there."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}

CID: Schema = {"type": "string", "description": "CIDv1 in base32"}
PEER: Schema = {"type": "string", "description": "a libp2p peer ID"}
TIME: Schema = {"type": "number", "description": "seconds since the epoch"}
SECONDS: Schema = {"type": "number", "description": "seconds"}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def of(**fields: Schema) -> Schema:
    """An object that always has these fields."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def may(**fields: Schema) -> Schema:
    """An object that may have them."""
    return {"type": "object", "properties": fields}


def the(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


AS_OF = {
    "agreed": {"type": "boolean", "description": "false: without a coordinator, as far as this node knows"},
    "as_of": {**or_null(NUMBER), "description": "when that was last known to be the mesh's, seconds since the epoch"},
}

OUTCOMES = ["passed", "failed", "error", "skipped", "xfailed", "xpassed"]
OUTCOME: Schema = {"type": "string", "enum": OUTCOMES}

RUN = of(
    run=TEXT,
    state={"enum": ["queued", "collecting", "running", "reporting", "passed", "failed", "cancelled", "error"]},
    name=TEXT,
    project=TEXT,
    submitter=PEER,
    priority=WHOLE,
    bundle=CID,
    pending=WHOLE,
    leased=WHOLE,
    done=WHOLE,
    tests=WHOLE,
    counts=the("Counts"),
    submitted_at=TIME,
    wall_seconds=SECONDS,
    exit_code=or_null(WHOLE),
    report=or_null(CID),
    manifest=or_null(CID),
    reason=TEXT,
    queue=or_null(of(place=WHOLE, of=WHOLE, slots=NUMBER, part=NUMBER, urgent=FLAG)),
    eta_seconds={**or_null(NUMBER), "description": "until it has ended, about; null: not known"},
)

TEST_ROW = of(
    index=WHOLE,
    test=TEXT,
    state={"enum": ["pending", "leased", "running", "done"]},
    outcome=or_null(OUTCOME),
    duration=or_null(SECONDS),
    worker=or_null(PEER),
    name={**or_null(TEXT), "description": "of the worker"},
    attempt={"type": "integer", "description": "which one that is, or how many there were without a verdict"},
    expected=or_null(SECONDS),
    chunk=or_null(CID),
)

SPAN: Schema = {
    "type": "array",
    "prefixItems": [WHOLE, SECONDS, SECONDS, WHOLE, WHOLE],
    "minItems": 5,
    "maxItems": 5,
    "description": "the test's index, its start after the timeline's, its seconds, the place of its outcome in "
    f"{', '.join(OUTCOMES)}, the attempt",
}

NODE_STATES = ["alive", "suspect", "dead", "draining"]

SHARES: Schema = {
    **or_null(listed(or_null(NUMBER))),
    "description": "0 to 1, one a step; a gap is null; null in place of all: never known",
}

REASON = of(text=TEXT, tests=WHOLE)

SCHEMAS: dict[str, Schema] = {
    "Error": of(error={"type": "string", "description": "one sentence"}, exit_code=WHOLE),
    "Counts": of(**dict.fromkeys(OUTCOMES, WHOLE)),
    "Node": of(
        peer=PEER,
        name=TEXT,
        role={"enum": ["auto", "coordinator", "worker", "client"]},
        state={"enum": NODE_STATES},
        addresses=listed(TEXT),
        slots=WHOLE,
        busy=WHOLE,
        capabilities=ANY,
    ),
    "Run": RUN,
    "OneRun": {
        "allOf": [
            the("Run"),
            of(
                spec=or_null(the("Spec")),
                hosts=or_null(listed(of(peer=PEER, name=TEXT, tests=WHOLE, bad=WHOLE, retried=WHOLE, seconds=SECONDS))),
                **AS_OF,
            ),
        ]
    },
    "Status": of(
        mesh=TEXT,
        self=PEER,
        coordinator=or_null(PEER),
        term=WHOLE,
        voters=listed(PEER),
        commit_index=WHOLE,
        conflicts=listed(TEXT),
        nodes=listed(the("Node")),
        runs=listed(the("Run")),
        **AS_OF,
    ),
    "Topology": of(mesh=TEXT, nodes=listed(the("Node")), links=listed(of(a=PEER, b=PEER, rtt=SECONDS))),
    "NodeHistory": of(
        peer=PEER,
        step_seconds=WHOLE,
        start={**or_null(TIME), "description": "of the first step; null: nothing is known"},
        cpu=SHARES,
        memory=SHARES,
        slots=SHARES,
        gpu=SHARES,
        gpu_memory=SHARES,
        states=listed(of(state=or_null({"enum": NODE_STATES}), since=TIME, until=or_null(TIME))),
        seen_by=PEER,
    ),
    "NodeRuns": of(
        host=PEER,
        runs=listed(
            of(
                run=TEXT,
                at=TIME,
                project=TEXT,
                name=TEXT,
                state=TEXT,
                tests=or_null(WHOLE),
                bad=or_null(WHOLE),
                retried=WHOLE,
                seconds=or_null(SECONDS),
            )
        ),
        **AS_OF,
    ),
    "Overview": of(nodes=listed(the("Node")), runs=listed(the("Run")), verdicts=listed(ANY)),
    "Raft": of(mesh=TEXT, seen_by=PEER, by_leader=FLAG, leader=or_null(PEER), health=ANY),
    "TestRow": TEST_ROW,
    "Tests": of(
        run=TEXT,
        total=WHOLE,
        matching=WHOLE,
        counts={**ANY, "description": "by outcome, and running, leased, pending"},
        tests=listed(the("TestRow")),
        **AS_OF,
    ),
    "Test": {
        "allOf": [
            the("TestRow"),
            of(
                run=TEXT,
                record=or_null(the("Record")),
                artifacts=listed(of(name=TEXT, cid=CID, size=WHOLE)),
                tries=listed(
                    of(
                        attempt=WHOLE,
                        outcome=OUTCOME,
                        duration=SECONDS,
                        worker=or_null(PEER),
                        name=or_null(TEXT),
                        record=or_null(the("Record")),
                        trouble={"type": "string", "description": "why there is no record; empty if there is one"},
                    )
                ),
                **AS_OF,
            ),
        ]
    },
    "Record": of(
        test=TEXT,
        outcome=OUTCOME,
        duration=SECONDS,
        started=TIME,
        worker=PEER,
        slot=WHOLE,
        attempt=WHOLE,
        phases=listed(of(name=TEXT, outcome=TEXT, duration=SECONDS)),
        message=TEXT,
        longrepr=TEXT,
        stdout=TEXT,
        stderr=TEXT,
        log=TEXT,
        dropped=WHOLE,
        signal=WHOLE,
        artifacts=or_null(CID),
    ),
    "Timeline": of(
        run=TEXT,
        start=TIME,
        end=or_null(TIME),
        first=SECONDS,
        last=SECONDS,
        tests=WHOLE,
        slots=listed(of(worker=PEER, name=TEXT, slot=WHOLE, spans=listed(SPAN))),
        idle=listed(of(worker=PEER, slot=WHOLE, start=SECONDS, seconds=SECONDS)),
        critical={**listed(WHOLE), "description": "the chain of tests that set the end, from its first"},
        cut={"type": "boolean", "description": "not all of its spans are here"},
        lost_chunks=WHOLE,
        **AS_OF,
    ),
    "Queue": of(
        runs=listed(
            of(
                run=TEXT,
                name=TEXT,
                state=TEXT,
                priority=WHOLE,
                pending=WHOLE,
                leased=WHOLE,
                place=or_null(WHOLE),
                of=or_null(WHOLE),
                eta_seconds=or_null(SECONDS),
                reasons=listed(REASON),
            )
        ),
        more_runs=WHOLE,
        by_priority=listed(of(priority=WHOLE, runs=WHOLE, pending=WHOLE, leased=WHOLE)),
        by_reason=listed(REASON),
        **AS_OF,
    ),
    "Ready": of(ready=FLAG, peer=PEER, reasons=listed(TEXT)),
    "Projects": of(projects=listed(of(project=TEXT, runs=WHOLE, last_run=TEXT, last_at=TIME))),
    "Trends": of(project=TEXT, runs=listed(ANY), slowest=listed(ANY), flakiest=listed(ANY), slower=listed(ANY)),
    "Past": of(project=TEXT, test=TEXT, results=listed(ANY), flaky=ANY, duration=ANY, hosts=listed(ANY)),
    "Alert": of(
        id=TEXT,
        kind=TEXT,
        subject=TEXT,
        severity={"enum": ["info", "warning", "critical"]},
        summary=TEXT,
        detail=TEXT,
        help=TEXT,
        since=TIME,
        last_seen=TIME,
        cleared_at=or_null(TIME),
        acknowledged_by=TEXT,
        acknowledged_at=or_null(TIME),
    ),
    "Spec": may(
        bundle=CID,
        name=TEXT,
        project=TEXT,
        arguments=listed(TEXT),
        command=or_null(TEXT),
        files=listed(TEXT),
        priority={"type": "integer", "minimum": 0, "maximum": 100, "default": 50},
        requires=TEXT,
        prefers=TEXT,
        test_type=TEXT,
        worker_count=WHOLE,
        retries=WHOLE,
        timeout=SECONDS,
        environment={"enum": ["ambient", "uv"]},
        variables={"type": "object", "additionalProperties": TEXT},
        python=TEXT,
        maxfail=WHOLE,
        share=WHOLE,
        deadline=SECONDS,
        preempt={"enum": ["never", "waiting", "grace", "now"]},
        after=listed(WHOLE),
        hedge=FLAG,
        cached=FLAG,
    ),
    "Why": of(target=TEXT, run=TEXT, state=TEXT, explanation=listed(TEXT), waiting=listed(ANY)),
    "Plan": of(runs=listed(ANY), tests=WHOLE, placed=WHOLE, makespan_seconds=SECONDS, nodes=listed(ANY)),
    "Pin": may(
        cid=CID,
        reason=TEXT,
        here=FLAG,
        wanted=WHOLE,
        holders=listed(of(peer=PEER, name=TEXT, state=TEXT)),
        under_replicated=FLAG,
        size=WHOLE,
        why=listed(ANY),
    ),
}
