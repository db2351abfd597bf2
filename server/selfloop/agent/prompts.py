"""Loads and fills `prompts/*.md`: everything that a model is told in our own words.

Invariant: rendering is strict. A name in a prompt that nothing fills, a value that no prompt asks for, and a tool
parameter that `tools.md` does not describe (or describes though it is not there) are errors, never silently empty text.
A comment (`<!-- … -->`) holds the reason for a rule; it is for people and is stripped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from selfloop.errors import RequestFailed

_COMMENT = re.compile(r"^[ \t]*<!--.*?-->[ \t]*\n?", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"\{\{(\w+)\}\}")
_PARAMETER = re.compile(r"^- `(\w+)`: (.+(?:\n  .+)*)\n?", re.MULTILINE)


@frozen
class ToolText:
    """What `tools.md` says of one tool."""

    description: str
    parameters: dict[str, str]
    """By name, in the order of the file."""


@frozen
class Prompts:
    """The prompts of one folder. Files are read when they are asked for, so an edited prompt counts at once."""

    folder: Path

    @staticmethod
    def load() -> Prompts:
        """Return the prompts that came with this package: inside it when installed, beside it in a checkout."""
        package = Path(__file__).resolve().parents[1]
        inside = package / "_prompts"
        return Prompts(inside if inside.is_dir() else package.parents[1] / "prompts")

    def render(self, name: str, /, **values: str) -> str:
        """Return the prompt `name` with every `{{name}}` filled, comments stripped.

        Raises:
            RequestFailed: the file is missing, a name is not filled, or a value is not asked for.
        """
        text = self._read(name)
        asked = set(_NAME.findall(text))
        if asked != set(values):
            odd = ", ".join(sorted(asked ^ set(values)))
            raise RequestFailed(
                f"The prompt {name}.md and what fills it do not fit ({odd}), so no model was asked; mend the prompt."
            )
        # One pass: what is filled in is never searched for names again.
        return _NAME.sub(lambda match: values[match[1]], text)

    def tool(self, name: str, parameters: Iterable[str]) -> ToolText:
        """Return the section on the tool `name`: of `tools.md`, or of another `tools_….md` beside it.

        Raises:
            RequestFailed: there is no such section, or it does not describe exactly these parameters.
        """
        section = self._sections().get(name)
        if section is None:
            raise RequestFailed(f"tools.md has no section on {name}, so no model was asked; write one.")
        described = {match[1]: re.sub(r"\s+", " ", match[2]).strip() for match in _PARAMETER.finditer(section)}
        odd = set(described) ^ set(parameters)
        if odd:
            raise RequestFailed(
                f"The section on {name} in tools.md and the tool do not fit ({', '.join(sorted(odd))}), "
                "so no model was asked; mend the section."
            )
        return ToolText(_tidy(_PARAMETER.sub("", section)), described)

    def _sections(self) -> dict[str, str]:
        names = sorted(file.stem for file in self.folder.glob("tools*.md")) or ["tools"]
        text = "\n\n".join(self._read(name) for name in names)
        parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)
        return {parts[index]: parts[index + 1] for index in range(1, len(parts), 2)}

    def _read(self, name: str) -> str:
        file = self.folder / f"{name}.md"
        try:
            return _tidy(_COMMENT.sub("", file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise RequestFailed(
                f"The prompt {file.name} cannot be read ({error}), so no model was asked; install Selfloop again."
            ) from error


def _tidy(text: str) -> str:
    """Close the gaps that stripped comments leave."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip()
