"""Generations in the real window: the lineage as a picture, one self with its evidence, and going back with *Undo*."""

from __future__ import annotations

from typing import Any

from lineage_room import SUMMARY, grow
from panel import expect
from workbench import Workbench


async def test_another_self_serves_and_its_parent_again(bench: Workbench) -> None:
    await grow(bench.server.home / "data")
    await bench.command("Selfloop: Generations")
    page = await bench.frame_with(".lineage svg")
    await expect(page.locator("main")).to_contain_text("generation 0 serves")
    await bench.screenshot("lineage")
    await page.get_by_role("button", name="What Changed").click()
    one = await bench.frame_with("text=What Proves It")
    await expect(one.locator("main")).to_contain_text("+Be brief.")
    await bench.screenshot("generation")
    await bench.tab("Selfloop: Generations").click()
    page = await bench.frame_with(".lineage svg")
    await page.get_by_role("button", name="Activate").click()
    said = await bench.expect_toast("Selfloop is generation 1 now")
    assert SUMMARY in said
    await bench.screenshot("swapped")
    await bench.frame_with("text=generation 1 serves")  # What a page says anew is a frame anew.
    await bench.toast("Selfloop is generation 1 now").get_by_role("button", name="Undo").click()
    page = await bench.frame_with("text=generation 0 serves")
    await expect(page.locator("main")).to_contain_text("rolled back")
    await bench.screenshot("undone")


async def test_evolving_with_nothing_to_learn_says_so(bench: Workbench, stage: Any) -> None:
    await bench.command("Selfloop: Evolve: Learn from Sessions and Improve Itself")
    await bench.frame_with("text=/nothing to learn from|runs in a jail/")
    await bench.screenshot("nothing")
    assert stage.requests == []
