"""Settings that carry authority, and the folders where things lie. All of it is the user's; a repository has no say.

Precedence: the editor's machine-scope settings (`initializationOptions.settings`), the environment, the user's own
`.env` in the config folder, the model selected last, `settings.toml` in the config folder. A workspace's `.env` is
never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import Factory, evolve, field, fields_dict, frozen
from attrs.converters import optional

from selfloop.errors import InvalidInput

OPENROUTER_URL = "https://openrouter.ai/api/v1"


@frozen
class Folders:
    """Where Selfloop keeps what is not the workspace's. `SELFLOOP_HOME` puts all three below one folder."""

    data: Path
    """Rules, the trust list, the owner secret, generations. Must outlive everything."""
    cache: Path
    """Shadow repositories and worktrees; may be cleared at any time."""
    config: Path
    """`settings.toml` and `.env`: the user's settings."""

    @staticmethod
    def of_user() -> Folders:
        """Return this user's folders, by the platform's rules. Nothing is created."""
        home = os.environ.get("SELFLOOP_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            return Folders(root / "data", root / "cache", root / "config")
        from platformdirs import PlatformDirs

        dirs = PlatformDirs("selfloop", appauthor=False)
        return Folders(Path(dirs.user_data_dir), Path(dirs.user_cache_dir), Path(dirs.user_config_dir))

    def workspace_cache(self, workspace: Path) -> Path:
        """Return the cache folder of a workspace, keyed by its real path."""
        return self.cache / "workspaces" / workspace_key(workspace)


def workspace_key(workspace: Path) -> str:
    """Return a short stable name for a workspace: the start of the sha256 of its real path."""
    return hashlib.sha256(os.fsencode(os.path.realpath(workspace))).hexdigest()[:16]


@frozen
class Settings:
    """What the user has set."""

    model: str | None = None
    """litellm's name, or any name at all where `base_url` is set."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint; None: what litellm knows for the model's provider."""
    api_key: str | None = field(default=None, repr=False)
    """From the environment or the user's `.env`; `key_for` gives it to no other origin than `api_key_origin`."""
    api_key_origin: str | None = field(
        default=Factory(lambda self: origin_of(self.base_url) if self.base_url else None, takes_self=True)
    )
    """The origin that stood beside the key where it was set."""
    context_tokens: int | None = None
    """The model's context; None: what is known of the model, else 32,768."""
    max_output_tokens: int | None = None
    """The most that one answer may have; None: what the model allows, at most 16,384."""
    text_protocol: bool | None = None
    """True: tools by text; False: native calls; None: native, and by text once the provider refuses tools."""
    turn_total_tokens: int | None = 2_000_000
    """Budget of one turn, sub-agents included; None: no limit."""
    turn_cost_usd: float | None = None
    turn_iterations: int = 200
    """Model calls of one turn."""
    retention_days: int = 90
    """Sessions untouched for longer are pruned, open gates excepted."""
    toolchains: tuple[str, ...] = ()
    """More folders that the jail shows read-only, such as a language's installation."""
    isolation: str = "auto"
    """`auto`: the jail where there is one; `changes`: never the jail (commands wait at a gate)."""
    self_folder: Path | None = field(default=None, converter=optional(Path))
    """A checkout that evolves in the place of the installed package: for those who develop Selfloop."""

    def key_for(self, base_url: str | None) -> str | None:
        """Return the environment's key, if it was set for this endpoint's origin: another's must not see it."""
        return self.api_key if base_url is not None and origin_of(base_url) == self.api_key_origin else None


def load_settings(folders: Folders, editor: dict[str, Any] | None = None) -> Settings:
    """Read the settings, lowest precedence first.

    Args:
        folders: the user's folders.
        editor: `initializationOptions.settings`, in camelCase; keys are never read from it.

    Raises:
        InvalidInput: the settings file cannot be read; the message names the file and the line.
    """
    values: dict[str, Any] = {}
    file = folders.config / "settings.toml"
    if file.is_file():
        try:
            values.update(tomllib.loads(file.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{file} is not valid TOML ({error}), so no setting was read; mend the file.") from error
    environment = _user_environment(folders)
    # A key belongs to the endpoint that the user set where keys are set, not to one chosen later, by a click.
    key_url = environment.get("INFERENCE_BASE_URL") or values.get("base_url") or OPENROUTER_URL
    values.update(_model_choice(folders))
    if environment.get("INFERENCE_BASE_URL"):
        values["base_url"] = environment["INFERENCE_BASE_URL"]
    if environment.get("MODEL_NAME"):
        values["model"] = environment["MODEL_NAME"]
    for name, value in (editor or {}).items():
        snake = "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)
        if snake not in _OF_THE_KEY and value not in (None, ""):
            values[snake] = value
    known = set(fields_dict(Settings))
    settings = Settings(**{name: _typed(name, value) for name, value in values.items() if name in known - _OF_THE_KEY})
    key = environment.get("OPENROUTER_API_KEY")
    if key and settings.base_url is None and not _own_provider(settings.model):
        settings = evolve(settings, base_url=OPENROUTER_URL)
    return evolve(settings, api_key=key or None, api_key_origin=origin_of(str(key_url)) if key else None)


def origin_of(url: str) -> str | None:
    """Return scheme, host and port of an http(s) URL in one spelling; None when it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    default = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")


def save_model_choice(folders: Folders, model: str, base_url: str | None) -> None:
    """Remember the model that the user selected; the environment and the editor's settings still come first."""
    folders.data.mkdir(parents=True, exist_ok=True)
    file = folders.data / "model.json"
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps({"model": model, "base_url": base_url}), encoding="utf-8")
    temporary.replace(file)


def _model_choice(folders: Folders) -> dict[str, Any]:
    try:
        chosen = json.loads((folders.data / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in chosen.items() if value} if isinstance(chosen, dict) else {}


_OF_THE_KEY = {"api_key", "api_key_origin"}
_NUMBERS = {"context_tokens", "max_output_tokens", "turn_total_tokens", "turn_iterations", "retention_days"}


def _typed(name: str, value: Any) -> Any:
    """Return a setting's value, or say plainly what it must be."""
    wanted, fits = "a text", isinstance(value, str)
    if name in _NUMBERS:
        wanted, fits = "a whole number above 0", type(value) is int and value > 0
    elif name == "turn_cost_usd":
        wanted, fits = "a number above 0", type(value) in (int, float) and value > 0
    elif name == "text_protocol":
        wanted, fits = "true or false", isinstance(value, bool)
    elif name == "toolchains":
        wanted, fits = "a list of folders", isinstance(value, list) and all(isinstance(item, str) for item in value)
    elif name == "isolation":
        wanted, fits = '"auto" or "changes"', value in ("auto", "changes")
    elif name == "self_folder":
        wanted, fits = "an absolute folder", isinstance(value, str) and Path(value).is_absolute()
    elif name == "base_url":
        wanted, fits = "an address such as https://host/v1", str(value).startswith(("http://", "https://"))
    if not fits:
        raise InvalidInput(f"The setting {name} must be {wanted}, not {value!r}; no setting was read. Mend it.")
    return tuple(value) if name == "toolchains" else value


def _user_environment(folders: Folders) -> dict[str, str]:
    """Return the process's environment, over the user's own `.env` in the config folder."""
    file = folders.config / ".env"
    if not file.is_file():
        return dict(os.environ)
    from dotenv import dotenv_values

    own = {name: value for name, value in dotenv_values(file, interpolate=False).items() if value is not None}
    return {**own, **os.environ}


def _own_provider(model: str | None) -> bool:
    """Tell whether the model's name carries a provider of its own, whose key litellm finds by itself."""
    return bool(model) and "/" in str(model) and str(model).split("/", 1)[0] in {
        "anthropic", "azure", "bedrock", "gemini", "groq", "mistral", "ollama", "ollama_chat", "openai", "vertex_ai",
        "xai", "deepseek", "cohere", "together_ai", "fireworks_ai",
    }  # fmt: skip
