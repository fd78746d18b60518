"""One of three PySyncObj processes, as shipped; run by the interpreter of the benchmarks' own environment.

`sync=True` calls one after the other give its latency, plain calls with a callback its rate. "As shipped" there is no
journal; with one, it is a memory-mapped file that nothing syncs but the page cache.
"""

import json
import sys
import threading
import time

from pysyncobj import SyncObj, SyncObjConf, replicated

SINGLE = 60
SECONDS = 4.0
IN_FLIGHT = 256
ELECTION_SECONDS_MAX = 30.0


class Table(SyncObj):
    def __init__(self, me, others, journal):
        options = {"journalFile": journal, "fullDumpFile": journal + ".dump"} if journal else {}
        super().__init__(me, others, conf=SyncObjConf(**options))
        self._values = {}

    @replicated
    def put(self, key, value):
        self._values[key] = value


def single(table):
    found = []
    for number in range(SINGLE):
        start = time.perf_counter()
        table.put(number % 200, f"worker-{number}", sync=True, timeout=10)
        found.append(time.perf_counter() - start)
    return found


def rate(table):
    room = threading.Semaphore(IN_FLIGHT)
    done = []

    def answered(result, error):
        if not error:
            done.append(None)
        room.release()

    start = time.perf_counter()
    number = 0
    while time.perf_counter() - start < SECONDS:
        room.acquire(timeout=10)
        table.put(number % 200, f"worker-{number}", callback=answered)
        number += 1
    return len(done) / (time.perf_counter() - start)


def main(me, others, journal):
    table = Table(me, others, journal)
    deadline = time.monotonic() + ELECTION_SECONDS_MAX
    while not table.isReady() or table._getLeader() is None:
        if time.monotonic() > deadline:
            raise SystemExit("no leader")
        time.sleep(0.05)
    time.sleep(1.0)
    if str(table._getLeader()) == me:
        print(json.dumps({"single": single(table), "concurrent": rate(table)}), flush=True)
    sys.stdin.readline()
    table.destroy()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","), sys.argv[3] if len(sys.argv) > 3 else "")
