"""Reading the forge: pull requests with their checks, issues, and runs of the continuous integration.

    a tool ─▶ which repository do the user's remotes mean? ─▶ `gh … --json …` outside the jail ─▶ lines, fenced as data

Invariant: nothing here writes anywhere but to `@outputs`. The calls are fixed; of the model's words only numbers and
whole `--flag=value` arguments reach the command line. What the forge answers is other people's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from selfloop.agent.tools.outside import brief, not_a_number, one_line, shown
from selfloop.agent.tools.tool import Call, Observation, Params, Tool, refused
from selfloop.sandbox.gh import Forge, ForgeError, no_forge
from selfloop.sandbox.remotes import read_remotes

_MOST_LISTED = 100
_LARGEST_NUMBER = 10**12
_BODY_CHARS = 8_000
_COMMENT_CHARS = 2_000
_COMMENTS = 30
_STEP_LINES = 80
_LOG_BYTES = 64 << 20
_LOG_STAMP = re.compile(r"^\ufeff?\d{4}-\d\d-\d\dT[\d:.]+Z ")
_FAILED = {"FAILURE", "ERROR", "TIMED_OUT", "CANCELLED", "ACTION_REQUIRED", "STARTUP_FAILURE"}


class ListPullRequests(Params):
    state: Literal["open", "closed", "merged", "all"] = "open"
    search: str | None = None
    limit: int = 30


class ReadPullRequest(Params):
    number: int
    diff: bool = False


class ListIssues(Params):
    state: Literal["open", "closed", "all"] = "open"
    search: str | None = None
    limit: int = 30


class ReadIssue(Params):
    number: int


class ListRuns(Params):
    branch: str | None = None
    status: Literal["failure", "success", "in_progress", "queued", "cancelled"] | None = None
    limit: int = 20


class ReadRunLog(Params):
    run_id: int


async def list_pull_requests(call: Call, params: ListPullRequests) -> Observation:
    """List pull requests with their reviews and checks."""
    forge, refusal = await _forge(call, ("limit", params.limit, _MOST_LISTED))
    if forge is None:
        return refusal
    fields = (
        "number,title,author,headRefName,headRefOid,baseRefName,isDraft,reviewDecision,mergeable,statusCheckRollup,"
        "updatedAt,labels,additions,deletions,changedFiles,state"
    )
    rows = await _rows(forge, "pr", "list", *_filters(params.state, params.search, params.limit), fields=fields)
    lines = []
    for row in rows:
        parts = [
            f"#{row.get('number')} {one_line(row.get('title'))}",
            f"by {_login(row.get('author'))}, {_head(row)} → {one_line(row.get('baseRefName'))}",
            f"+{row.get('additions')} −{row.get('deletions')} in {row.get('changedFiles')} files",
            _state(row),
            _checks(row.get("statusCheckRollup")),
            f"updated {row.get('updatedAt')}",
            *_labels(row),
        ]
        lines.append(" · ".join(part for part in parts if part))
    return await _listing(call, "list_pull_requests", forge, _kind(params.state, "pull requests"), lines, params.limit)


async def read_pull_request(call: Call, params: ReadPullRequest) -> Observation:
    """Show one pull request: what it says, its checks and reviews, and which files it touches."""
    forge, refusal = await _forge(call, ("number", params.number, _LARGEST_NUMBER))
    if forge is None:
        return refusal
    fields = (
        "number,title,body,author,state,isDraft,baseRefName,headRefName,headRefOid,mergeable,reviewDecision,reviews,comments,"
        "statusCheckRollup,files,additions,deletions,labels,createdAt,updatedAt,url"
    )
    number = str(params.number)
    row = await _row(forge, "pr", "view", number, fields=fields)
    lines = [
        f"#{row.get('number')} {one_line(row.get('title'))}",
        f"{_state(row)}; by {_login(row.get('author'))}; {_head(row)} → "
        f"{one_line(row.get('baseRefName'))}; opened {row.get('createdAt')}, updated {row.get('updatedAt')}",
        *_labels(row),
        "",
        "## Body",
        brief(row.get("body"), _BODY_CHARS) or "(empty)",
        "",
        "## Checks",
        *(_check_lines(row.get("statusCheckRollup")) or ["(none)"]),
        "",
        f"## Files: +{row.get('additions')} −{row.get('deletions')}",
        *(f"{one_line(f.get('path'), 400)} +{f.get('additions')} −{f.get('deletions')}" for f in _dicts(row, "files")),
        "",
        "## Reviews",
        *(_said(_dicts(row, "reviews"), "submittedAt") or ["(none)"]),
        "",
        "## Comments",
        *(_said(_dicts(row, "comments"), "createdAt") or ["(none)"]),
    ]
    if params.diff:
        lines += ["", "## Diff", await forge.run("pr", "diff", number, "--color=never")]
    return await shown(call, "read_pull_request", f"Pull request {number}.", "\n".join(lines), source=_source(forge))


async def list_issues(call: Call, params: ListIssues) -> Observation:
    """List issues."""
    forge, refusal = await _forge(call, ("limit", params.limit, _MOST_LISTED))
    if forge is None:
        return refusal
    fields = "number,title,author,labels,assignees,milestone,createdAt,updatedAt,state"
    rows = await _rows(forge, "issue", "list", *_filters(params.state, params.search, params.limit), fields=fields)
    lines = []
    for row in rows:
        assigned = ", ".join(_login(person) for person in _dicts(row, "assignees"))
        parts = [
            f"#{row.get('number')} {one_line(row.get('title'))}",
            f"by {_login(row.get('author'))}",
            f"opened {row.get('createdAt')}, updated {row.get('updatedAt')}",
            f"assigned to {assigned}" if assigned else "assigned to nobody",
            *(_labels(row) or ["no labels"]),
        ]
        lines.append(" · ".join(parts))
    return await _listing(call, "list_issues", forge, _kind(params.state, "issues"), lines, params.limit)


async def read_issue(call: Call, params: ReadIssue) -> Observation:
    """Show one issue with its comments."""
    forge, refusal = await _forge(call, ("number", params.number, _LARGEST_NUMBER))
    if forge is None:
        return refusal
    fields = "number,title,body,author,state,labels,assignees,milestone,comments,createdAt,updatedAt,url"
    row = await _row(forge, "issue", "view", str(params.number), fields=fields)
    assigned = ", ".join(_login(person) for person in _dicts(row, "assignees"))
    lines = [
        f"#{row.get('number')} {one_line(row.get('title'))}",
        f"{row.get('state')}; by {_login(row.get('author'))}; opened {row.get('createdAt')}, "
        f"updated {row.get('updatedAt')}; assigned to {assigned or 'nobody'}",
        *(_labels(row) or ["no labels"]),
        "",
        "## Body",
        brief(row.get("body"), _BODY_CHARS) or "(empty)",
        "",
        "## Comments",
        *(_said(_dicts(row, "comments"), "createdAt") or ["(none)"]),
    ]
    return await shown(call, "read_issue", f"Issue {params.number}.", "\n".join(lines), source=_source(forge))


async def list_runs(call: Call, params: ListRuns) -> Observation:
    """List runs of the continuous integration."""
    forge, refusal = await _forge(call, ("limit", params.limit, _MOST_LISTED))
    if forge is None:
        return refusal
    fields = "databaseId,displayTitle,workflowName,headBranch,headSha,event,status,conclusion,createdAt,updatedAt"
    flags = [f"--limit={params.limit}"]
    flags += [f"--branch={params.branch}"] if params.branch else []
    flags += [f"--status={params.status}"] if params.status else []
    rows = await _rows(forge, "run", "list", *flags, fields=fields)
    lines = [
        f"{row.get('databaseId')} {row.get('conclusion') or row.get('status')} · {one_line(row.get('workflowName'))} · "
        f"{one_line(row.get('headBranch'))} at {str(row.get('headSha'))[:12]} · {one_line(row.get('displayTitle'))} · "
        f"{row.get('event')} · {row.get('createdAt')}"
        for row in rows
    ]
    return await _listing(call, "list_runs", forge, "runs", lines, params.limit)


async def read_run_log(call: Call, params: ReadRunLog) -> Observation:
    """Show the end of each failed step of a run."""
    forge, refusal = await _forge(call, ("run_id", params.run_id, _LARGEST_NUMBER))
    if forge is None:
        return refusal
    run_id = str(params.run_id)
    fields = "displayTitle,workflowName,headBranch,headSha,event,status,conclusion,jobs,url"
    row = await _row(forge, "run", "view", run_id, fields=fields)
    lines = [
        f"{one_line(row.get('workflowName'))}: {one_line(row.get('displayTitle'))}",
        f"{row.get('conclusion') or row.get('status')} · {one_line(row.get('headBranch'))} at "
        f"{str(row.get('headSha'))[:12]} · {row.get('event')}",
    ]
    for job in _dicts(row, "jobs"):
        failed = [one_line(s.get("name")) for s in _dicts(job, "steps") if str(s.get("conclusion")).upper() in _FAILED]
        steps = f", failed in: {'; '.join(failed)}" if failed else ""
        lines.append(f"job {one_line(job.get('name'))}: {job.get('conclusion') or job.get('status')}{steps}")
    head = f"Run {run_id}."
    if str(row.get("status")).lower() != "completed":
        head += " It has not ended, so there is no log of it yet."
    elif str(row.get("conclusion")).upper() in _FAILED:
        # What matters of a log stands at its end, so all of it is read.
        log = await forge.run("run", "view", run_id, "--log-failed", timeout_seconds=90.0, most_bytes=_LOG_BYTES)
        lines += _steps(log)
        head += f" Of each failed step the last {_STEP_LINES} lines are shown."
    return await shown(call, "read_run_log", head, "\n".join(lines), source=_source(forge))


FORGE_TOOLS = (
    Tool("list_pull_requests", "read", ListPullRequests, list_pull_requests, lambda p: f"List {p.state} pull requests"),
    Tool("read_pull_request", "read", ReadPullRequest, read_pull_request, lambda p: f"Read pull request {p.number}",
         deadline_seconds=120.0),
    Tool("list_issues", "read", ListIssues, list_issues, lambda p: f"List {p.state} issues"),
    Tool("read_issue", "read", ReadIssue, read_issue, lambda p: f"Read issue {p.number}"),
    Tool("list_runs", "read", ListRuns, list_runs, lambda p: "List runs"),
    Tool("read_run_log", "read", ReadRunLog, read_run_log, lambda p: f"Read the log of run {p.run_id}",
         deadline_seconds=180.0),
)  # fmt: skip
"""For a loop's maker and checker only: a chat has not been permitted to read the forge."""


async def _forge(call: Call, number: tuple[str, int, int]) -> tuple[Forge | None, Observation]:
    """Return the repository that the user's remotes mean, or the refusal of the call."""
    refusal = not_a_number(*number)
    if refusal is not None:
        return None, refusal
    shadow = call.bench.worktree.shadow
    base = (await read_remotes(shadow.origin, shadow.git_dir)).base
    repository = None if base is None else base.repository
    if repository is None:
        return None, refused(no_forge().message)
    return Forge(repository), Observation("")


async def _rows(forge: Forge, *arguments: str, fields: str) -> list[dict[str, Any]]:
    answer = await forge.read(*arguments, fields=fields)
    if not isinstance(answer, list):
        raise ForgeError("`gh` answered with what is no list, so nothing was read; update it.", kind="garbage")
    return [row for row in answer if isinstance(row, dict)]


async def _row(forge: Forge, *arguments: str, fields: str) -> dict[str, Any]:
    answer = await forge.read(*arguments, fields=fields)
    if not isinstance(answer, dict):
        raise ForgeError("`gh` answered with what is no object, so nothing was read; update it.", kind="garbage")
    return answer


async def _listing(call: Call, tool: str, forge: Forge, what: str, lines: list[str], limit: int) -> Observation:
    if not lines:
        return Observation(f"No {what} fit in {forge.repository.slug}.")
    more = " There may be more: raise `limit`, or narrow the search." if len(lines) >= limit else ""
    return await shown(call, tool, f"{len(lines)} {what}.{more}", "\n".join(lines), source=_source(forge))


def _kind(state: str, what: str) -> str:
    return what if state == "all" else f"{state} {what}"


def _filters(state: str, search: str | None, limit: int) -> list[str]:
    return [f"--state={state}", f"--limit={limit}", *([f"--search={search}"] if search else [])]


def _source(forge: Forge) -> str:
    return f"the forge, {forge.repository.slug}"


def _dicts(row: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = row.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _login(person: object) -> str:
    return one_line(person.get("login") or person.get("name")) if isinstance(person, dict) else "somebody"


def _head(row: dict[str, Any]) -> str:
    """Return a pull request's branch, with its newest commit where it is told."""
    commit = str(row.get("headRefOid") or "")[:12]
    return one_line(row.get("headRefName")) + (f" at {commit}" if commit else "")


def _labels(row: dict[str, Any]) -> list[str]:
    names = ", ".join(one_line(label.get("name")) for label in _dicts(row, "labels"))
    return [f"labels: {names}"] if names else []


def _state(row: dict[str, Any]) -> str:
    parts = [str(row.get("state") or "").lower(), "draft" if row.get("isDraft") else ""]
    decision = str(row.get("reviewDecision") or "").lower().replace("_", " ")
    mergeable = str(row.get("mergeable") or "").lower()
    parts += [decision and f"review: {decision}", mergeable and f"merge: {mergeable}"]
    return ", ".join(part for part in parts if part)


def _outcome(check: dict[str, Any]) -> str:
    """Return how a check ended: a check run has a conclusion, a commit status a state."""
    return str(check.get("conclusion") or check.get("state") or check.get("status") or "unknown").upper()


def _checks(rollup: object) -> str:
    checks = [check for check in rollup if isinstance(check, dict)] if isinstance(rollup, list) else []
    if not checks:
        return "no checks"
    counts: dict[str, int] = {}
    for check in checks:
        counts[_outcome(check).lower()] = counts.get(_outcome(check).lower(), 0) + 1
    return "checks: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _check_lines(rollup: object) -> list[str]:
    checks = [check for check in rollup if isinstance(check, dict)] if isinstance(rollup, list) else []
    checks.sort(key=lambda check: _outcome(check) not in _FAILED)
    lines = []
    for check in checks[:_MOST_LISTED]:
        name = " / ".join(one_line(check.get(key)) for key in ("workflowName", "name", "context") if check.get(key))
        link = str(check.get("detailsUrl") or check.get("targetUrl") or "")
        run = re.search(r"/runs/(\d+)", link)
        lines.append(f"{_outcome(check).lower()}: {name}" + (f" (run {run[1]})" if run else ""))
    return lines


def _said(items: Iterable[dict[str, Any]], when: str) -> list[str]:
    lines: list[str] = []
    items = list(items)
    if len(items) > _COMMENTS:
        lines.append(f"[the first {len(items) - _COMMENTS} are left out]")
    for item in items[-_COMMENTS:]:
        state = f", {str(item['state']).lower().replace('_', ' ')}" if item.get("state") else ""
        lines.append(f"### {_login(item.get('author'))}, {item.get(when)}{state}")
        body = brief(item.get("body"), _COMMENT_CHARS)
        lines += [body] if body else []
    return lines


def _steps(log: str) -> list[str]:
    """Return the end of each step in a log of `job<TAB>step<TAB>time text` lines."""
    steps: dict[tuple[str, str], list[str]] = {}
    for line in log.splitlines():
        job, _, rest = line.partition("\t")
        step, _, text = rest.partition("\t")
        steps.setdefault((job, step), []).append(_LOG_STAMP.sub("", text))
    lines = []
    for (job, step), texts in steps.items():
        cut = f" (its last {_STEP_LINES} of {len(texts):,} lines)" if len(texts) > _STEP_LINES else ""
        lines += ["", f"## {job} / {step}{cut}", *texts[-_STEP_LINES:]]
    return lines
