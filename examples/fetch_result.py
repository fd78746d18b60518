"""A report by its CID, from Python, with nothing but the standard library.

    python examples/fetch_result.py CID HOME [DIRECTORY]

Asks the node that runs in HOME (any node of the mesh, not only the one that submitted the run); the node fetches what
it lacks from the others and checks every block against its CID. Writes report.json and junit.xml to DIRECTORY.
"""

import json
import sys
import urllib.parse
import urllib.request
from pathlib import Path


def fetch(home: Path, cid: str, path: str) -> bytes:
    """A file of the directory `cid`. HOME/api.json says where the node listens, and has the token that it asks for."""
    api = json.loads((home / "api.json").read_text())
    request = urllib.request.Request(f"{api['url']}/api/content/{cid}?path={urllib.parse.quote(path, safe='')}")
    request.add_header("Authorization", f"Bearer {api['token']}")
    with urllib.request.urlopen(request, timeout=120) as answer:
        content: bytes = answer.read()
        return content


def main() -> None:
    if len(sys.argv) not in (3, 4):
        raise SystemExit("usage: fetch_result.py CID HOME [DIRECTORY]")
    cid, home = sys.argv[1], Path(sys.argv[2])
    directory = Path(sys.argv[3] if len(sys.argv) == 4 else ".")
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("report.json", "junit.xml"):
        (directory / name).write_bytes(fetch(home, cid, name))
    report = json.loads((directory / "report.json").read_text())
    print(", ".join(f"{count} {outcome}" for outcome, count in report["counts"].items() if count))
    print("the slowest:")
    for test in sorted(report["tests"], key=lambda test: -test["duration"])[:5]:
        print(f"  {test['duration']:8.3f} s  {test['outcome']:8}  {test['test']}")


if __name__ == "__main__":
    main()
