"""A stand-in `gh` on the PATH: it plays a forge out of a folder, records its calls, and fails in every way that counts.

`install(bin, state)` writes the program; `Forge(state)` reads what it was asked and what stands there now. The program
knows its folder by itself, because the environment that it gets is scrubbed.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from attrs import define

PROGRAM = """#!{python} -IS
import json, os, sys, time, fcntl
STATE = {state!r}
HOST = "https://forge.example/team/app"
argv = sys.argv[1:]
text = "" if sys.stdin is None or "--body-file=-" not in argv and "--notes-file=-" not in argv else sys.stdin.read()
lock = open(STATE + "/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
with open(STATE + "/calls.jsonl", "a") as file:
    file.write(json.dumps({{"argv": argv, "stdin": text, "cwd": os.getcwd(), "env": dict(os.environ)}}) + "\\n")
data = json.load(open(STATE + "/data.json"))
mode = data["mode"]

def save():
    with open(STATE + "/data.new", "w") as file:
        json.dump(data, file)
    os.replace(STATE + "/data.new", STATE + "/data.json")

def fail(said, code=1):
    sys.stderr.write(said + "\\n")
    sys.exit(code)

def flag(name):
    return next((a.partition("=")[2] for a in argv if a.startswith("--" + name + "=")), None)

writes = argv[1] in ("create", "comment")
if mode == "logged-out":
    fail("To get started with GitHub CLI, please run:  gh auth login\\nAlternatively, populate the GH_TOKEN", 4)
if mode == "expired":
    fail("HTTP 401: Bad credentials (https://forge.example/graphql)\\nTry authenticating with:  gh auth login")
if mode == "rate-limited":
    fail("GraphQL: API rate limit exceeded for user ID 1. (HTTP 403)")
if mode == "garbage":
    print("<html>not what you asked for</html>"); sys.exit(0)
if mode == "slow" or mode == "slow-writes" and writes:
    fcntl.flock(lock, fcntl.LOCK_UN); time.sleep(600)
if flag("repo") != "forge.example/team/app":
    fail("GraphQL: Could not resolve to a Repository with the name '%s'. (repository)" % flag("repo"))

def answer(value):
    fields = (flag("json") or "").split(",")
    pick = lambda row: {{name: row.get(name) for name in fields}}
    print(json.dumps([pick(r) for r in value] if isinstance(value, list) else pick(value)))

group, verb = argv[0], argv[1]
place = next((a for a in argv[2:] if not a.startswith("-")), None)
kinds = {{"pr": "pulls", "issue": "issues", "run": "runs", "release": "releases"}}
rows = data[kinds[group]]
key = {{"run": "databaseId", "release": "tagName"}}.get(group, "number")
row = next((r for r in rows if str(r[key]) == place), None)
if verb == "list":
    head = flag("head")
    answer([r for r in rows if head is None or r.get("headRefName") == head][:int(flag("limit") or 30)])
elif verb == "view" and "--log-failed" in argv:
    sys.stdout.write(row["log"])
elif verb == "view":
    if row is None:
        fail("release not found" if group == "release" else
             "GraphQL: Could not resolve to an issue or pull request with the number of %s." % place)
    answer(row)
elif verb == "diff":
    print(row["diff"])
elif verb == "comment":
    if row is None:
        fail("GraphQL: Could not resolve to an issue or pull request with the number of %s." % place)
    url = "%s/issues/%s#comment-%d" % (HOST, place, len(row["comments"]) + 1)
    row["comments"].append({{"author": {{"login": "me"}}, "body": text, "url": url, "viewerDidAuthor": True,
                             "createdAt": "2026-01-01T00:00:00Z"}})
    save(); print(url)
elif verb == "create" and group == "pr":
    number = 100 + len(rows)
    if any(r["headRefName"] == flag("head") for r in rows):
        fail("a pull request for branch already exists")
    url = "%s/pull/%d" % (HOST, number)
    rows.append({{"number": number, "title": flag("title"), "body": text, "headRefName": flag("head"),
                  "baseRefName": flag("base"), "url": url, "state": "OPEN", "comments": []}})
    save(); print(url)
elif verb == "create" and group == "release":
    url = "%s/releases/tag/untagged-1" % HOST
    rows.append({{"tagName": place, "name": flag("title"), "body": text, "isDraft": "--draft" in argv, "url": url}})
    save(); print(url)
else:
    fail("unknown command")
if mode == "lost" and writes:
    data["mode"] = "works"
    save()
    fail("error connecting to forge.example")
"""


@define
class StandIn:
    """What the stand-in was asked, and what stands on its forge."""

    state: Path

    @property
    def data(self) -> dict[str, Any]:
        return json.loads((self.state / "data.json").read_text())

    def put(self, **rows: Any) -> None:
        """Replace some of what stands there: `mode`, `pulls`, `issues`, `runs`, `releases`."""
        (self.state / "data.json").write_text(json.dumps({**self.data, **rows}))

    @property
    def calls(self) -> list[dict[str, Any]]:
        file = self.state / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def verbs(self) -> list[str]:
        return [" ".join(call["argv"][:2]) for call in self.calls]


def without(folder: Path) -> str:
    """Return a PATH on which git and ripgrep are, and nothing else: no `gh`, even where the machine has one."""
    folder.mkdir()
    for name in ("git", "rg"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return str(folder)


def install(folder: Path, state: Path) -> StandIn:
    """Put `gh` into a folder, with an empty forge that works."""
    folder.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True)
    empty: dict[str, Any] = {"mode": "works", "pulls": [], "issues": [], "runs": [], "releases": []}
    (state / "data.json").write_text(json.dumps(empty))
    program = folder / "gh"
    program.write_text(PROGRAM.format(python=sys.executable, state=str(state)))
    program.chmod(0o755)
    return StandIn(state)
