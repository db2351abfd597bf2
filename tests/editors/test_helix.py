"""Helix cannot be driven without a terminal; what its page says is checked against what the server has."""

from __future__ import annotations

import json
import tomllib

import pytest

from editor_pages import PAGES, block, commands_named
from selfloop.lsp.capabilities import RECORD

pytestmark = pytest.mark.unit


def test_the_blocks_are_toml_and_start_the_server_for_each_language() -> None:
    languages = tomllib.loads(block("helix.md", "languages"))
    server = languages["language-server"]["selfloop"]
    assert [server["command"], *server["args"]] == ["selfloop", "serve"]
    assert languages["language"] and all("selfloop" in one["language-servers"] for one in languages["language"])
    assert "markdown" in {one["name"] for one in languages["language"]}, "chat files are Markdown"
    keys = tomllib.loads(block("helix.md", "keys"))["keys"]["normal"]["space"]["x"]
    assert keys["c"] == ":lsp-workspace-command selfloop.chat.new"


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_every_command_that_a_page_names_exists(page: str) -> None:
    known = set(json.loads(RECORD.read_text())["capabilities"]["executeCommandProvider"]["commands"])
    assert commands_named(page) and commands_named(page) <= known
