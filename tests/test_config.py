"""Settings: who may say what, in which order, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfloop.config import OPENROUTER_URL, Folders, load_settings, save_model_choice
from selfloop.errors import InvalidInput

pytestmark = pytest.mark.unit


@pytest.fixture
def folders() -> Folders:
    """The user's folders, below the test's own."""
    found = Folders.of_user()
    found.config.mkdir(parents=True)
    return found


def test_the_editor_comes_before_the_environment_and_that_before_the_files(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders.config / "settings.toml").write_text('model = "from the file"\nturn_iterations = 7\n')
    assert load_settings(folders).model == "from the file"
    save_model_choice(folders, "selected", None)
    assert load_settings(folders).model == "selected"
    monkeypatch.setenv("MODEL_NAME", "from the environment")
    assert load_settings(folders).model == "from the environment"
    settings = load_settings(folders, {"model": "from the editor", "contextTokens": 9000, "apiKey": "never"})
    assert (settings.model, settings.context_tokens, settings.turn_iterations) == ("from the editor", 9000, 7)
    assert settings.api_key is None


def test_the_users_own_env_file_counts_and_the_workspaces_does_not(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("INFERENCE_BASE_URL=http://evil.example/v1\nOPENROUTER_API_KEY=planted\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings(folders).base_url is None
    (folders.config / ".env").write_text("OPENROUTER_API_KEY=mine\n")
    settings = load_settings(folders)
    assert (settings.api_key, settings.base_url) == ("mine", OPENROUTER_URL)
    assert "mine" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("contextTokens", "many"),
        ("contextTokens", 0),
        ("turnIterations", True),
        ("turnCostUsd", -1),
        ("isolation", "none"),
        ("textProtocol", "yes"),
        ("toolchains", "/opt"),
        ("baseUrl", "ftp://host"),
        ("model", 5),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_must_be(folders: Folders, name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"The setting .* must be"):
        load_settings(folders, {name: value})


def test_a_file_that_is_no_toml_is_named_with_its_line(folders: Folders) -> None:
    (folders.config / "settings.toml").write_text("model = \n")
    with pytest.raises(InvalidInput, match=r"settings\.toml.*line 1"):
        load_settings(folders)


def test_the_environments_key_is_for_the_endpoint_that_was_set_with_it(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_BASE_URL", "https://one.example/v1")
    monkeypatch.setenv("OPENROUTER_API_KEY", "secret")
    settings = load_settings(folders, {"baseUrl": "https://two.example/v1"})
    assert settings.base_url == "https://two.example/v1"
    assert settings.key_for(settings.base_url) is None
    assert settings.key_for("https://ONE.example:443/other") == "secret"
    save_model_choice(folders, "m", "https://two.example/v1")
    monkeypatch.delenv("INFERENCE_BASE_URL")
    chosen = load_settings(folders)
    assert (chosen.base_url, chosen.key_for(chosen.base_url)) == ("https://two.example/v1", None)
