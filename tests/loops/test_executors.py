"""The executors on a real repository with hooks, a real bare remote and a played forge: done once, or said."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from attrs import evolve

from executor_room import FILES, Yard, an_action, build, change, open_yard, some_changes
from processes import gone
from repositories import git, write
from selfloop.errors import Stale
from selfloop.loops.actions import Action, ActionFailed, Receipt, preview
from stand_in_gh import StandIn, install, without

BRANCH = "selfloop/ci-sweeper/run-0001"


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A played forge, first on the PATH."""
    stand_in = install(tmp_path / "bin", tmp_path / "forge")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return stand_in


@pytest.fixture
async def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Yard]:
    """A repository with a bare remote."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    build(tmp_path)
    yield await open_yard(tmp_path)


def user_state(work: Path) -> tuple[str, ...]:
    """Return all that a commit must leave as it is."""
    head = (work / ".git" / "HEAD").read_text()
    index = (work / ".git" / "index").read_bytes().hex()
    files = [
        f"{f.relative_to(work)}:{f.read_bytes()!r}"
        for f in sorted(work.rglob("*"))
        if ".git" not in f.parts and f.is_file()
    ]
    config = (work / ".git" / "config").read_text()
    return head, index, config, *files, git(work, "worktree", "list"), git(work, "rev-parse", "main")


# Commit


async def test_a_commit_makes_a_branch_and_touches_nothing_of_the_users(yard: Yard) -> None:
    write(yard.work, {"src/other.py": "half = 'done'\n"})
    git(yard.work, "add", "src/other.py")
    before = user_state(yard.work)
    receipt = await yard.do(an_action("commit"), some_changes())
    assert user_state(yard.work) == before
    assert (receipt.branch, receipt.delivered) == (BRANCH, True)
    assert git(yard.work, "rev-parse", BRANCH).strip() == receipt.commit
    assert git(yard.work, "show", f"{BRANCH}:src/app.py").splitlines()[1] == "two = 22"
    assert git(yard.work, "diff", "--name-status", "main", BRANCH).split() == [
        "D",
        "README.md",
        "M",
        "src/app.py",
        "A",
        "src/new.py",
    ]
    assert git(yard.work, "log", "-1", "--format=%an <%ae>", BRANCH).strip() == "Una User <una@example.com>"
    message = git(yard.work, "log", "-1", "--format=%B", BRANCH)
    assert message.startswith("Count better\n\nTwo is twenty-two now.\n# not a comment\n\nSelfloop-Loop: ci-sweeper\n")


async def test_the_users_hooks_run_in_the_checkout(yard: Yard, tmp_path: Path) -> None:
    yard.hook("pre-commit", f"pwd > {tmp_path}/where; cat src/app.py > {tmp_path}/seen; env > {tmp_path}/env")
    yard.hook("commit-msg", 'echo "Checked-by: hook" >> "$1"')
    await yard.do(an_action("commit"), some_changes())
    assert "two = 22" in (tmp_path / "seen").read_text()
    assert (tmp_path / "where").read_text().strip() != str(yard.work)
    assert "Checked-by: hook" in git(yard.work, "log", "-1", "--format=%B", BRANCH)


async def test_a_hook_sees_no_key_of_a_model(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-something-secret")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    yard.hook("pre-commit", f"env > {tmp_path}/env")
    await yard.do(an_action("commit"), some_changes())
    seen = (tmp_path / "env").read_text()
    assert "sk-or-something-secret" not in seen and "/nowhere" not in seen
    assert f"HOME={os.environ['HOME']}" in seen


async def test_a_failing_hook_is_a_refusal_with_its_output_and_leaves_nothing(yard: Yard) -> None:
    yard.hook("pre-commit", "echo 'line 3: too long' >&2; echo and more; exit 1")
    before = user_state(yard.work)
    with pytest.raises(ActionFailed) as refusal:
        await yard.do(an_action("commit"), some_changes())
    assert "line 3: too long" in refusal.value.output and "and more" in refusal.value.output
    assert "refused the commit; nothing was committed" in refusal.value.message
    assert user_state(yard.work) == before
    assert yard.branches(yard.work) == ["main"]
    yard.hook("pre-commit", "exit 0")
    assert (await yard.do(an_action("commit"), some_changes())).commit


async def test_a_relative_hooks_path_means_the_users_folder_and_never_the_changed_one(
    yard: Yard, tmp_path: Path
) -> None:
    hook = f"#!/bin/sh\necho theirs >> {tmp_path}/ran\n"
    write(yard.work, {".hooks/pre-commit": hook})
    (yard.work / ".hooks/pre-commit").chmod(0o755)
    git(yard.work, "add", ".hooks")
    git(yard.work, "commit", "-q", "-m", "hooks")
    git(yard.work, "config", "core.hooksPath", ".hooks")
    evil = f"#!/bin/sh\necho evil >> {tmp_path}/ran\n"
    modes = {"pre_mode": 0o100755, "post_mode": 0o100755}
    await yard.do(an_action("commit"), [change(".hooks/pre-commit", hook, evil, **modes)])
    assert (tmp_path / "ran").read_text() == "theirs\n"


async def test_a_checkout_that_a_kill_has_left_half_written_is_cleared(yard: Yard) -> None:
    left = yard.work / ".git" / "worktrees" / f"selfloop-{BRANCH.replace('/', '-')}"
    write(left, {"commondir": "", "HEAD": "ref: refs/heads/main\n", "gitdir": "/nowhere/.git\n"})
    receipt = await yard.do(an_action("commit"), some_changes())
    assert git(yard.work, "rev-parse", BRANCH).strip() == receipt.commit
    assert git(yard.work, "worktree", "list").count("\n") == 1


async def test_what_a_hook_starts_does_not_outlive_the_commit(yard: Yard, tmp_path: Path) -> None:
    yard.hook("pre-commit", f"setsid sh -c 'echo $$ > {tmp_path}/pid; sleep 300' >/dev/null 2>&1 &\nsleep 0.3")
    await yard.do(an_action("commit"), some_changes())
    assert gone(int((tmp_path / "pid").read_text()), 2.0)


async def test_hooks_find_the_ignored_dependencies(yard: Yard, tmp_path: Path) -> None:
    write(yard.work, {"node_modules/tool/run": "#!/bin/sh\necho linted\n", ".git/info/exclude": "node_modules/\n"})
    yard.hook("pre-commit", f"sh node_modules/tool/run > {tmp_path}/said || exit 1")
    await yard.do(an_action("commit"), some_changes())
    assert (tmp_path / "said").read_text() == "linted\n"
    assert (yard.work / "node_modules/tool/run").exists()
    assert "node_modules" not in git(yard.work, "ls-tree", "-r", "--name-only", BRANCH)


async def test_uncommitted_text_of_the_user_stays_out_of_the_commit(yard: Yard) -> None:
    mine = str(FILES["src/app.py"]).replace("four = 4", "four = 'my private try'")
    write(yard.work, {"src/app.py": mine})
    await yard.do(an_action("commit"), [change("src/app.py", mine, mine.replace("one = 1", "one = 11"))])
    committed = git(yard.work, "show", f"{BRANCH}:src/app.py")
    assert "one = 11" in committed and "private" not in committed


async def test_a_change_that_stands_on_uncommitted_lines_is_refused(yard: Yard) -> None:
    mine = str(FILES["src/app.py"]).replace("two = 2", "two = 'mine'")
    write(yard.work, {"src/app.py": mine})
    with pytest.raises(ActionFailed, match="commit your own changes first"):
        await yard.do(an_action("commit"), [change("src/app.py", mine, mine.replace("'mine'", "'ours'"))])
    assert yard.branches(yard.work) == ["main"]


async def test_a_commit_from_a_folder_inside_the_repository(tmp_path: Path, yard: Yard) -> None:
    inner = await open_yard(tmp_path, yard.work / "src")
    old = str(FILES["src/app.py"])
    await inner.do(an_action("commit"), [change("app.py", old, old + "five = 5\n")])
    assert "five = 5" in git(yard.work, "show", f"{BRANCH}:src/app.py")


async def test_modes_and_links_are_committed_as_they_are(yard: Yard) -> None:
    changes = [
        change("run.sh", None, "#!/bin/sh\n", post_mode=0o100755),
        change("link", None, "src/app.py", post_mode=0o120000),
    ]
    await yard.do(an_action("commit"), changes)
    listed = git(yard.work, "ls-tree", BRANCH)
    assert "100755 blob" in listed and "120000 blob" in listed


async def test_a_commit_from_a_linked_worktree_of_the_users(tmp_path: Path, yard: Yard) -> None:
    git(yard.work, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    side = await open_yard(tmp_path, tmp_path / "side")
    receipt = await side.do(an_action("commit"), some_changes())
    assert git(yard.work, "rev-parse", BRANCH).strip() == receipt.commit
    assert git(yard.work, "worktree", "list").count("\n") == 2
    assert git(tmp_path / "side", "status", "--porcelain") == ""


async def test_a_repository_of_sha256_with_packed_branches(tmp_path: Path, yard: Yard) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q", "-b", "main", "--object-format=sha256")
    for name in ("user.name", "user.email"):
        git(other, "config", name, "una")
    write(other, FILES)
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "first")
    git(other, "pack-refs", "--all")
    (tmp_path / "notes.jsonl").unlink(missing_ok=True)
    there = await open_yard(tmp_path / "elsewhere", other)
    there.notes.file.parent.mkdir(exist_ok=True)
    receipt = await there.do(an_action("commit"), some_changes())
    assert len(receipt.commit or "") == 64 and git(other, "rev-parse", BRANCH).strip() == receipt.commit


async def test_a_shallow_clone_is_committed_to_and_its_carried_commits_are_named(
    tmp_path: Path, yard: Yard, gh: StandIn
) -> None:
    git(yard.work, "commit", "-q", "--allow-empty", "-m", "second")
    git(yard.work, "push", "-q", "origin", "main")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{yard.bare}", str(clone))
    for name in ("user.name", "user.email"):
        git(clone, "config", name, "una")
    git(clone, "commit", "-q", "--allow-empty", "-m", "mine alone")
    there = await open_yard(tmp_path, clone)
    action = await there.executors.prepare(an_action("open-pr"), some_changes())
    assert [subject.partition(" ")[2] for subject in action.carried] == ["mine alone"]
    receipt = await there.executors.act(action, some_changes())
    assert git(yard.bare, "rev-parse", BRANCH).strip() == receipt.commit
    assert not receipt.delivered and "No remote of this repository is an owner/name" in receipt.summary


@pytest.mark.parametrize("name", ["-rf", "a..b", "a b", "refs/heads/../x", "x.lock", "HEAD", "a~1", "--upload-pack=x"])
async def test_an_odd_branch_name_is_refused(yard: Yard, name: str) -> None:
    with pytest.raises(ActionFailed, match="is no name for a branch"):
        await yard.do(an_action("commit", branch=name), some_changes())


async def test_a_branch_of_that_name_is_not_overwritten(yard: Yard) -> None:
    git(yard.work, "commit", "-q", "--allow-empty", "-m", "more")
    git(yard.work, "branch", BRANCH, "main~1")
    with pytest.raises(ActionFailed, match="another branch"):
        await yard.do(an_action("commit"), some_changes())


async def test_no_repository_and_no_commit_are_said(tmp_path: Path, yard: Yard) -> None:
    (tmp_path / "plain").mkdir()
    plain = await open_yard(tmp_path, tmp_path / "plain")
    with pytest.raises(ActionFailed, match="no git repository"):
        await plain.do(an_action("commit"), some_changes())
    with pytest.raises(ActionFailed, match="no changes"):
        await yard.do(an_action("commit"), [])


async def test_changes_that_were_not_shown_are_not_carried_out(yard: Yard) -> None:
    action = await yard.executors.prepare(an_action("commit"), some_changes())
    with pytest.raises(Stale):
        await yard.executors.act(action, some_changes()[:1])
    assert yard.branches(yard.work) == ["main"] and not yard.notes.rows()


# Pull requests


async def test_a_pull_request_is_pushed_and_opened(yard: Yard, gh: StandIn) -> None:
    receipt = await yard.do(an_action("open-pr"), some_changes())
    assert git(yard.bare, "rev-parse", BRANCH).strip() == receipt.commit
    (pull,) = gh.data["pulls"]
    assert (pull["headRefName"], pull["baseRefName"], pull["title"]) == (BRANCH, "main", "Count better")
    assert pull["body"].startswith("Two is twenty-two now.\n")
    assert receipt.uri == pull["url"] and receipt.delivered
    assert gh.verbs() == ["pr list", "pr create"]
    assert all(call["cwd"] == "/" and call["env"]["GIT_DIR"] == "/dev/null" for call in gh.calls)


async def test_the_preview_shows_exactly_what_is_sent(yard: Yard, gh: StandIn) -> None:
    git(yard.work, "commit", "-q", "--allow-empty", "-m", "a commit that nobody has pushed")
    token = "ghp_" + "a1B2" * 9
    action = await yard.executors.prepare(
        an_action("open-pr", body=f"Token {token} and a\u202e trick."), some_changes()
    )
    shown = preview(action, some_changes())
    for part in (BRANCH, "origin", str(yard.bare), "into main", "+two = 22", action.marker, "Selfloop-Run: run-0001"):
        assert part in shown
    assert "a commit that nobody has pushed" in shown
    assert token not in shown and "‹U+202E›" in shown and "\u202e" not in shown
    await yard.executors.act(action, some_changes())
    (pull,) = gh.data["pulls"]
    assert pull["body"] == action.text and token not in pull["body"]


@pytest.mark.parametrize("mode", ["missing", "logged-out", "expired", "rate-limited", "garbage"])
async def test_without_the_forge_the_branch_is_pushed_and_the_text_and_address_given(
    yard: Yard, gh: StandIn, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "missing":
        monkeypatch.setenv("PATH", without(yard.home / "bare-bin"))
    else:
        gh.put(mode=mode)
    receipt = await yard.do(an_action("open-pr"), some_changes())
    assert git(yard.bare, "rev-parse", BRANCH).strip() == receipt.commit
    assert not receipt.delivered and receipt.path is not None
    assert receipt.uri == f"https://forge.example/team/app/compare/main...{BRANCH}?expand=1"
    assert receipt.uri in receipt.summary and receipt.path in receipt.summary
    assert "Two is twenty-two now." in Path(receipt.path).read_text()
    assert gh.data["pulls"] == []


async def test_the_address_that_the_remote_offers_is_given_if_it_is_the_forges(yard: Yard, gh: StandIn) -> None:
    gh.put(mode="logged-out")
    hook = yard.bare / "hooks" / "post-receive"
    hook.write_text(
        "#!/bin/sh\necho 'see https://evil.example/x'\necho 'Create: https://forge.example/team/app/pull/new/b'\n"
    )
    hook.chmod(0o755)
    receipt = await yard.do(an_action("open-pr"), some_changes())
    assert receipt.uri == "https://forge.example/team/app/pull/new/b"


async def test_a_remote_that_refuses_and_a_failing_pre_push_hook_keep_the_branch(yard: Yard, gh: StandIn) -> None:
    yard.hook("pre-push", "echo 'not on a Friday' >&2; exit 1")
    with pytest.raises(ActionFailed, match="not on a Friday"):
        await yard.do(an_action("open-pr"), some_changes())
    assert BRANCH in yard.branches(yard.work) and BRANCH not in yard.branches(yard.bare)
    (yard.work / ".git/hooks/pre-push").unlink()
    hook = yard.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'protected'\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(ActionFailed, match="was not pushed"):
        await yard.do(an_action("open-pr"), some_changes())
    hook.unlink()
    assert (await yard.do(an_action("open-pr"), some_changes())).delivered
    assert git(yard.work, "rev-list", "--count", f"main..{BRANCH}").strip() == "1"


async def test_a_remote_that_moved_since_it_was_shown_gets_nothing(yard: Yard, gh: StandIn, tmp_path: Path) -> None:
    action = await yard.executors.prepare(an_action("open-pr"), some_changes())
    git(tmp_path, "init", "-q", "--bare", str(tmp_path / "other.git"))
    git(yard.work, "config", "remote.origin.pushurl", str(tmp_path / "other.git"))
    with pytest.raises(ActionFailed, match="no longer pushes to"):
        await yard.executors.act(action, some_changes())
    assert yard.branches(tmp_path / "other.git") == [] and gh.calls == []


async def test_a_remote_that_pushes_to_two_places_an_unknown_and_an_odd_one_are_refused(yard: Yard) -> None:
    for name in ("nobody", "--upload-pack=touch x", "https://evil.example/x.git"):
        with pytest.raises(ActionFailed, match="There is no remote"):
            await yard.do(an_action("open-pr", remote=name), some_changes())
    git(yard.work, "config", "--add", "remote.origin.pushurl", "/elsewhere.git")
    with pytest.raises(ActionFailed, match="several addresses"):
        await yard.do(an_action("open-pr"), some_changes())


async def test_a_fork_is_named_with_its_owner(yard: Yard, gh: StandIn) -> None:
    git(yard.work, "remote", "add", "upstream", FORGE_TEAM := "https://forge.example/team/app")
    git(yard.work, "config", "remote.origin.url", "git@forge.example:una/app.git")
    git(yard.work, "config", "remote.pushDefault", "origin")
    action = await yard.executors.prepare(an_action("open-pr"), some_changes())
    assert FORGE_TEAM.endswith("team/app") and action.repository == "forge.example/team/app"
    assert action.head == f"una:{BRANCH}" and action.remote == "origin"


# Comments, drafts, reports


async def test_a_comment_is_posted_once_with_its_marker(yard: Yard, gh: StandIn) -> None:
    gh.put(issues=[{"number": 7, "comments": [], "url": "https://forge.example/team/app/issues/7"}])
    action = await yard.executors.prepare(an_action("comment", about="issue", number=7))
    first = await yard.executors.act(action)
    (yard.home / "notes.jsonl").unlink()
    second = await yard.executors.act(action)
    (comment,) = gh.data["issues"][0]["comments"]
    assert comment["body"] == action.text and action.marker in preview(action)
    assert first.uri == second.uri == comment["url"]


async def test_a_marker_in_somebody_elses_comment_does_not_count(yard: Yard, gh: StandIn) -> None:
    action = await yard.executors.prepare(an_action("comment", about="pull-request", number=7))
    theirs = {"body": action.marker, "viewerDidAuthor": False, "url": "https://forge.example/x"}
    gh.put(pulls=[{"number": 7, "comments": [theirs], "headRefName": "x", "url": ""}])
    await yard.executors.act(action)
    assert len(gh.data["pulls"][0]["comments"]) == 2


@pytest.mark.parametrize("mode", ["missing", "logged-out", "rate-limited", "garbage"])
async def test_a_comment_that_cannot_be_posted_is_kept_in_a_file(
    yard: Yard, gh: StandIn, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "missing":
        monkeypatch.setenv("PATH", without(yard.home / "bare-bin"))
    gh.put(mode=mode, issues=[{"number": 7, "comments": [], "url": ""}])
    receipt = await yard.do(an_action("comment", about="issue", number=7))
    assert not receipt.delivered and receipt.path is not None and receipt.path in receipt.summary
    assert Path(receipt.path).read_text().startswith("Two is twenty-two now.")
    assert gh.data["issues"][0]["comments"] == []


async def test_an_answer_that_was_lost_is_looked_up(yard: Yard, gh: StandIn) -> None:
    gh.put(mode="lost", issues=[{"number": 7, "comments": [], "url": ""}])
    receipt = await yard.do(an_action("comment", about="issue", number=7))
    assert receipt.delivered and len(gh.data["issues"][0]["comments"]) == 1


async def test_after_a_try_that_may_have_got_through_nothing_is_claimed(yard: Yard, gh: StandIn) -> None:
    action = await yard.executors.prepare(an_action("comment", about="issue", number=7))
    yard.notes.intend(action.key, {})
    gh.put(mode="rate-limited")
    with pytest.raises(ActionFailed, match="may be posted, or not"):
        await yard.executors.act(action)


@pytest.mark.parametrize("wrong", [{"number": 7}, {"about": "issue"}, {"about": "issue", "number": -3}])
async def test_a_comment_without_a_target_is_refused(yard: Yard, wrong: dict[str, object]) -> None:
    with pytest.raises(ActionFailed, match="names no pull request or issue"):
        await yard.do(an_action("comment", **wrong))


async def test_a_draft_is_a_release_with_a_tag_and_a_file_without(yard: Yard, gh: StandIn) -> None:
    kept = await yard.do(an_action("draft", run_id="run-0002"))
    assert kept.delivered and Path(str(kept.path)).read_text().startswith("# Count better\n\nTwo is")
    assert gh.calls == []
    made = await yard.do(an_action("draft", tag="v2.0"))
    (release,) = gh.data["releases"]
    assert release["isDraft"] and release["tagName"] == "v2.0" and made.uri == release["url"]
    with pytest.raises(ActionFailed, match="no name for a tag"):
        await yard.do(an_action("draft", tag="--latest"))
    again = await yard.do(an_action("draft", tag="v2.0", run_id="run-0003"))
    assert not again.delivered and "already" in again.summary and len(gh.data["releases"]) == 1


async def test_a_report_and_an_unwired_patch(yard: Yard, gh: StandIn) -> None:
    assert "nothing was sent" in (await yard.do(an_action("report"))).summary
    with pytest.raises(ActionFailed, match="apply-patch"):
        await yard.do(an_action("apply-patch"), some_changes())
    assert gh.calls == [] and yard.branches(yard.work) == ["main"]


async def test_actions_and_receipts_survive_json(yard: Yard) -> None:
    action = await yard.executors.prepare(an_action("open-pr"), some_changes())
    assert Action.from_json(json.loads(msgspec.json.encode(action.to_json()))) == action
    receipt = Receipt("comment", "Posted.", "2026-01-01T00:00:00Z", uri="https://forge.example/1")
    assert Receipt.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt
    assert action.digest != evolve(action, body="other").digest


# Asked twice, and side by side


async def test_asked_twice_it_is_done_once(yard: Yard, gh: StandIn) -> None:
    action = await yard.executors.prepare(an_action("open-pr"), some_changes())
    first, second = await asyncio.gather(*(yard.executors.act(action, some_changes()) for _ in range(2)))
    assert first == second
    (yard.home / "notes.jsonl").unlink()
    third = await yard.executors.act(action, some_changes())
    assert third.commit == first.commit and third.uri == first.uri
    assert len(gh.data["pulls"]) == 1
