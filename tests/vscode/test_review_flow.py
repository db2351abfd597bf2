"""The one review flow and its other faces: by keys alone, in the gates view, in the diff editors, for every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from panel import expect
from scene import GREETING
from workbench import Workbench, eventually

HELLO = ("greet.py", "'Hello ' + name", "f'Hello {name}'")
BYE = ("greet.py", "'Bye ' + name", "f'Bye {name}'")
README = ("README.md", "# Greetings", "# Salutations")
STEPS = 20


def ladder(word: str = "old") -> str:
    """Return a file of twenty places that can be changed one by one."""
    return "".join(f"step_{number:02d} = '{word}'\n\n\n" for number in range(STEPS))


@pytest.mark.parametrize("files", [{"a.py": ladder(), "b.py": ladder()}])
async def test_twenty_hunks_are_reviewed_by_keys_alone(bench: Workbench, project: Path, propose: Any) -> None:
    half = STEPS // 2
    await propose(
        bench.server,
        project,
        *((name, f"step_{number:02d} = 'old'", f"step_{number:02d} = 'new'")
          for name in ("a.py", "b.py") for number in range(half)),
    )  # fmt: skip
    await _waiting(bench, STEPS)
    await bench.press("Alt+n")
    await bench.tab("a.py").wait_for()
    await bench.screenshot("first-hunk")
    for number in range(STEPS):
        # A press decides what is in view, so the next hunk is waited for as a user does: by seeing the cursor at it.
        await bench.tab("a.py" if number < half else "b.py").wait_for()
        await bench.status(f"Ln {3 * (number % half) + 1}, Col 1").wait_for()
        await bench.press("Alt+x" if number % 3 == 2 else "Alt+y")
        await _waiting(bench, STEPS - number - 1)
    await bench.screenshot("nothing-left")
    expected = {"a.py": ladder(), "b.py": ladder()}
    for number in range(STEPS):
        if number % 3 != 2:
            name, at = ("a.py", number) if number < half else ("b.py", number - half)
            expected[name] = expected[name].replace(f"step_{at:02d} = 'old'", f"step_{at:02d} = 'new'")

    async def written() -> bool:
        return {name: (project / name).read_text() for name in expected} == expected

    await eventually(written, "exactly what was approved")


async def _waiting(bench: Workbench, count: int) -> None:
    """Wait until the activity bar's badge says how many hunks wait."""
    badge = bench.page.locator('.activitybar .action-item:has([aria-label^="Selfloop"]) .badge-content')

    async def shown() -> str:
        return (await badge.inner_text()) if await badge.is_visible() else "0"

    async def right() -> bool:
        return await shown() in (str(count), "" if count == 0 else str(count))

    await eventually(right, f"{count} hunks to wait")


async def test_the_gates_view_decides_by_hunk_by_file_and_takes_back(
    bench: Workbench, project: Path, propose: Any
) -> None:
    await propose(bench.server, project, HELLO, BYE, README)
    await bench.command("Selfloop: Focus on Waiting for You View")
    rows = await bench.tree("Waiting for You")
    await rows.filter(has_text="greet.py").wait_for()
    await bench.screenshot("tree")
    await bench.row_button(rows.filter(has_text="README.md").first, "Approve")

    async def readme() -> bool:
        return (project / "README.md").read_text() == "# Salutations\n"

    await eventually(readme, "the approved file")
    await expect(rows.filter(has_text="README.md")).to_have_count(0)
    await bench.row_button(rows.filter(has_text="greet.py").first, "Reject")
    await _waiting(bench, 0)
    assert (project / "greet.py").read_text() == GREETING
    approved = rows.filter(has_text="Approved").first
    await approved.locator(".monaco-tl-twistie").click()
    await bench.screenshot("tree-approved")
    await bench.row_button(rows.last, "Undo This Change")

    async def back() -> bool:
        return (project / "README.md").read_text() == "# Greetings\n"

    await eventually(back, "the file as it was")


async def test_the_whole_proposal_is_one_diff_with_buttons(bench: Workbench, project: Path, propose: Any) -> None:
    await propose(bench.server, project, HELLO, README)
    await _waiting(bench, 2)
    await bench.command("Selfloop: Review the Whole Proposal")
    diff = bench.page.locator(".multiDiffEntry, .multi-diff-editor, .monaco-multi-diff-editor").first
    await diff.wait_for()
    await expect(bench.page.locator(".editor-group-container.active")).to_contain_text("f'Hello {name}'")
    await bench.screenshot("whole-proposal")


async def test_a_hunks_diff_is_vs_codes_own(bench: Workbench, project: Path, propose: Any) -> None:
    await bench.open_file("greet.py")
    await propose(bench.server, project, HELLO)
    await _waiting(bench, 1)
    await bench.press("Alt+n", "Alt+i")
    diff = bench.page.locator(".monaco-diff-editor").first
    await diff.wait_for()
    await expect(diff).to_contain_text("f'Hello {name}'")
    await bench.screenshot("diff")
    await bench.press("Alt+y")
    await _waiting(bench, 0)

    async def written() -> bool:
        return (project / "greet.py").read_text() == GREETING.replace(HELLO[1], HELLO[2])

    await eventually(written, "the approved text")


async def test_a_dirty_file_stays_dirty_and_keeps_the_users_words(
    bench: Workbench, project: Path, propose: Any
) -> None:
    await bench.open_file("greet.py")
    await bench.goto(7, 1)
    await bench.type("# mine")
    await propose(bench.server, project, HELLO)
    await _waiting(bench, 1)
    await bench.press("Alt+n", "Alt+y")
    await bench.expect_text("f'Hello {name}'")
    await bench.expect_text("# mine")
    assert await bench.dirty("greet.py") and (project / "greet.py").read_text() == GREETING


async def test_a_file_that_was_deleted_meanwhile_is_said_not_made(
    bench: Workbench, project: Path, propose: Any
) -> None:
    await propose(bench.server, project, HELLO)
    await _waiting(bench, 1)
    (project / "greet.py").unlink()
    await bench.command("Selfloop: Focus on Waiting for You View")
    rows = await bench.tree("Waiting for You")
    await bench.row_button(rows.filter(has_text="greet.py").first, "Approve")
    message = bench.page.locator(".notifications-toasts .notification-list-item").first

    async def said() -> bool:
        stale = await rows.filter(has_text="out of date").count()
        return bool(stale) or "greet.py" in (await message.inner_text() if await message.is_visible() else "")

    await eventually(said, "a sentence that says why")
    await bench.screenshot("deleted")
    assert not (project / "greet.py").exists()


async def test_what_is_proposed_twice_is_collapsed(bench: Workbench, project: Path, propose: Any) -> None:
    for name in ("one.py", "two.py", "three.py"):
        (project / name).write_text("x = 1\n")
    await propose(bench.server, project, *((name, "x = 1", "x = 2") for name in ("one.py", "two.py", "three.py")))
    await bench.command("Selfloop: Focus on Waiting for You View")
    rows = await bench.tree("Waiting for You")
    equal = rows.filter(has_text="3 equal").first
    await equal.wait_for()
    await bench.screenshot("equal")
    await equal.hover()
    await equal.get_by_role("button", name="Approve").click()

    async def written() -> bool:
        return all((project / name).read_text() == "x = 2\n" for name in ("one.py", "two.py", "three.py"))

    await eventually(written, "all three files")
