"""The review in the file itself: lenses, the light bulb, undo, and a hunk that is out of date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scene import GREETING
from workbench import Workbench, eventually

HELLO = ("greet.py", "'Hello ' + name", "f'Hello {name}'")
BYE = ("greet.py", "'Bye ' + name", "f'Bye {name}'")


async def _lens_rows(bench: Workbench, approve: int) -> None:
    """Wait until so many hunks have their row of lenses."""

    async def rows() -> bool:
        return await bench.lens("^Approve$").count() == approve

    await eventually(rows, f"{approve} rows of lenses")


async def test_a_lens_approves_one_hunk_and_rejects_the_other(bench: Workbench, project: Path, propose: Any) -> None:
    await bench.open_file("greet.py")
    await propose(bench.server, project, HELLO, BYE)
    await _lens_rows(bench, 2)
    await bench.screenshot("two-hunks")
    await bench.lens("^Approve$").nth(1).click()
    await bench.expect_text("return f'Bye {name}'")
    await _lens_rows(bench, 1)

    async def saved() -> bool:
        return "f'Bye" in (project / "greet.py").read_text() and not await bench.dirty("greet.py")

    await eventually(saved, "the clean file to be saved")
    await bench.screenshot("one-approved")
    await bench.lens("^Reject$").first.click()
    await _lens_rows(bench, 0)
    assert "'Hello ' + name" in await bench.editor_text()
    assert (project / "greet.py").read_text() == GREETING.replace(BYE[1], BYE[2])


async def test_the_light_bulb_decides_a_hunk(bench: Workbench, project: Path, propose: Any) -> None:
    await bench.open_file("greet.py")
    await propose(bench.server, project, HELLO)
    await _lens_rows(bench, 1)
    await bench.goto(2, 8)
    offered = await bench.light_bulb()
    await bench.screenshot("light-bulb")
    approving = next(row for row in offered if "approve" in row.lower())
    await bench.choose_action(approving)
    await bench.expect_text("return f'Hello {name}'")


async def test_the_light_bulb_asks_about_a_selection(bench: Workbench, project: Path, stage: Any, propose: Any) -> None:
    await bench.open_file("greet.py")
    await propose(bench.server, project, BYE)
    await bench.goto(1, 1)
    await bench.press("Shift+ArrowDown", "Shift+ArrowDown")
    offered = " | ".join(await bench.light_bulb()).lower()
    await bench.screenshot("selection")
    for word in ("explain", "improve", "test"):
        assert word in offered, offered


async def test_undo_in_the_editor_makes_a_hunk_wait_again(bench: Workbench, project: Path, propose: Any) -> None:
    await bench.open_file("greet.py")
    await propose(bench.server, project, HELLO)
    await _lens_rows(bench, 1)
    await bench.lens("^Approve$").click()
    await bench.expect_text("return f'Hello {name}'")
    await _lens_rows(bench, 0)
    await bench.focus_editor()
    await bench.press("Control+z")
    await bench.expect_text("return 'Hello ' + name")
    await _lens_rows(bench, 1)
    await bench.press("Control+Shift+z")
    await bench.expect_text("return f'Hello {name}'")
    await _lens_rows(bench, 0)


async def test_undo_this_change_takes_back_all_files(bench: Workbench, project: Path, propose: Any) -> None:
    await bench.open_file("greet.py")
    read = await propose(bench.server, project, HELLO, ("README.md", "# Greetings", "# Salutations"))
    await _lens_rows(bench, 1)
    await bench.command("Selfloop: Approve File")
    # The review goes on to the next file by itself.
    await bench.tab("README.md").wait_for()
    await bench.lens("^Approve$").wait_for()
    await bench.command("Selfloop: Approve Hunk and Go On")

    def texts() -> tuple[str, str]:
        return (project / "greet.py").read_text(), (project / "README.md").read_text()

    async def approved() -> bool:
        return texts() == (GREETING.replace(HELLO[1], HELLO[2]), "# Salutations\n")

    await eventually(approved, f"both files on the disk; the proposal was {read}")
    await bench.command("Selfloop: Undo This Change")

    async def back() -> bool:
        return texts() == (GREETING, "# Greetings\n")

    await eventually(back, "both files as they were")
    await bench.screenshot("taken-back")


async def test_a_hunk_that_is_out_of_date_says_why_and_asks_again(
    bench: Workbench, project: Path, stage: Any, propose: Any
) -> None:
    await bench.open_file("greet.py")
    await propose(bench.server, project, HELLO)
    await _lens_rows(bench, 1)
    await bench.goto(2, 12)
    await bench.press("Shift+End")
    await bench.type("'Servus ' + name")
    await bench.lens("^Out of date").first.wait_for()
    await _lens_rows(bench, 0)
    await bench.screenshot("stale")
    assert "return 'Servus ' + name" in await bench.editor_text()
    asked = len(stage.requests)
    await bench.lens("^Ask again$").first.click()

    async def went() -> bool:
        return len(stage.requests) > asked

    await eventually(went, "the model to be asked again")
    assert "greet.py" in str(stage.requests[-1].messages[-1])


async def test_typing_elsewhere_never_makes_a_click_fail(bench: Workbench, project: Path, propose: Any) -> None:
    await bench.open_file("greet.py")
    await propose(bench.server, project, HELLO, BYE)
    await _lens_rows(bench, 2)
    await bench.goto(4, 1)
    await bench.type("# mine")
    await bench.press("Enter")
    await bench.lens("^Approve$").nth(1).click()
    await bench.type("# more")
    await bench.expect_text("return f'Bye {name}'")
    await bench.lens("^Approve$").first.click()
    await bench.expect_text("return f'Hello {name}'")
    shown = await bench.editor_text()
    assert "# mine" in shown and "# more" in shown, shown
    assert await bench.dirty("greet.py"), "a file with the user's unsaved words stays unsaved"
    assert (project / "greet.py").read_text() == GREETING
