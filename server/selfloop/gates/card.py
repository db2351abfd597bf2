"""The trust card of a gate on changes: what a person should know before approving it.

Invariant: it speaks of the forthcoming change alone, which is what an approval would carry out now. What is stale or
decided is not counted and raises no flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Literal

from attrs import frozen

from selfloop.changes import (
    EXECUTABLE,
    SYMLINK,
    FileChange,
    decode_text,
    diff_lines,
    hidden_characters,
    split_lines,
    visible,
)
from selfloop.gates.review import FileReview, adds_hidden
from selfloop.sandbox.paths import is_protected

FlagKind = Literal["deletion", "dependency", "ci", "protected", "hidden", "binary", "executable", "link"]

REQUEST_CHARACTERS = 2_000

_DEPENDENCIES = frozenset(
    """
    package.json package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml pnpm-workspace.yaml bun.lock bun.lockb
    deno.json deno.jsonc deno.lock .npmrc .yarnrc .yarnrc.yml bower.json
    pyproject.toml setup.py setup.cfg pipfile pipfile.lock poetry.lock pdm.lock uv.lock environment.yml
    environment.yaml conda-lock.yml
    cargo.toml cargo.lock go.mod go.sum go.work go.work.sum
    gemfile gemfile.lock composer.json composer.lock mix.exs mix.lock rebar.config rebar.lock
    pom.xml build.gradle build.gradle.kts settings.gradle settings.gradle.kts gradle.lockfile libs.versions.toml
    build.sbt packages.config packages.lock.json directory.packages.props nuget.config paket.dependencies paket.lock
    package.swift package.resolved podfile podfile.lock cartfile cartfile.resolved pubspec.yaml pubspec.lock
    conanfile.txt conanfile.py vcpkg.json flake.nix flake.lock stack.yaml stack.yaml.lock cabal.project manifest.toml
    project.toml rockspec .gitmodules
    """.split()
)
"""Manifests and lock files of the common ecosystems, in lower case."""
_DEPENDENCY_ENDINGS = (".csproj", ".fsproj", ".vbproj", ".gemspec", ".cabal", ".podspec", ".rockspec", ".nimble")
_CI_FILES = frozenset(
    """
    .gitlab-ci.yml .gitlab-ci.yaml jenkinsfile .travis.yml azure-pipelines.yml azure-pipelines.yaml
    bitbucket-pipelines.yml appveyor.yml .appveyor.yml .drone.yml .woodpecker.yml .cirrus.yml cloudbuild.yaml
    cloudbuild.yml buildspec.yml .semaphore.yml codemagic.yaml bitrise.yml wercker.yml
    """.split()
)
_CI_FOLDERS = (
    ".github/workflows", ".github/actions", ".circleci", ".buildkite", ".gitlab/ci", ".woodpecker",
    ".forgejo/workflows", ".gitea/workflows", ".teamcity", ".semaphore", ".azure-pipelines", ".ci",
)  # fmt: skip


@frozen
class Flag:
    """Something to look at twice."""

    kind: FlagKind
    text: str
    """One plain sentence; what cannot be seen is written out."""
    path: str | None = None


@frozen
class Card:
    """See the module."""

    request: str
    files: int
    added: int
    """Lines."""
    removed: int
    flags: tuple[Flag, ...]


def card_of(reviews: Sequence[FileReview], words: Sequence[str]) -> Card:
    """Return the card of a gate.

    Args:
        reviews: its files, held against what is there now.
        words: what the user said in the turns behind it, oldest first.
    """
    forthcoming = [change for one in reviews if (change := one.forthcoming) is not None]
    own = [line.text[:1] for change in forthcoming for line in diff_lines(change) if line.hunk_id is not None]
    flags = [flag for change in forthcoming for flag in _flags(change)]
    return Card(request_of(words), len(forthcoming), own.count("+"), own.count("-"), tuple(flags))


def request_of(words: Sequence[str]) -> str:
    """Return what the user said, newest last; what is too long loses its oldest messages, and then its end."""
    request = ""
    for text in reversed([text.strip() for text in words if text.strip()]):
        longer = f"{text}\n\n{request}" if request else text
        if len(longer) > REQUEST_CHARACTERS:
            return request or text[: REQUEST_CHARACTERS - 1] + "…"
        request = longer
    return request


def is_dependency(path: str) -> bool:
    """Tell whether a file says which foreign code a project takes in."""
    name = PurePosixPath(path).name.casefold()
    requirements = name.startswith(("requirements", "constraints")) and name.endswith((".txt", ".in"))
    return name in _DEPENDENCIES or requirements or name.endswith(_DEPENDENCY_ENDINGS)


def is_ci(path: str) -> bool:
    """Tell whether a file says what runs by itself when the project is pushed."""
    folded = path.casefold()
    return PurePosixPath(folded).name in _CI_FILES or any(folded.startswith(f"{folder}/") for folder in _CI_FOLDERS)


def _flags(change: FileChange) -> Iterable[Flag]:
    path = change.path
    shown = visible(path).replace("\n", "‹U+000A›")
    kinds = {hunk.kind for hunk in change.hunks}
    names = [name for name in (path, change.old_path) if name is not None]

    def flag(kind: FlagKind, text: str) -> Flag:
        return Flag(kind, text, path)

    if change.operation == "delete":
        text = decode_text(change.pre) if change.pre is not None else None
        lost = f", all {len(split_lines(text))} lines of it" if text else ""
        yield flag("deletion", f"{shown} is deleted{lost}.")
    # Both of these are protected too; what they are says more than that.
    takes_in, runs = any(is_dependency(name) for name in names), any(is_ci(name) for name in names)
    if takes_in:
        yield flag("dependency", f"{shown} says which foreign code the project takes in.")
    if runs:
        yield flag("ci", f"{shown} says what runs by itself when the project is pushed.")
    if not takes_in and not runs and any(is_protected(name) for name in names):
        yield flag(
            "protected", f"{shown} is a protected file: it can change what runs on this machine or who may see it."
        )
    hidden = dict.fromkeys(name for hunk in change.hunks for name in adds_hidden(hunk))
    hidden |= dict.fromkeys(name for one in names for name in hidden_characters(one))
    if hidden:
        yield flag("hidden", f"{shown} gets characters that cannot be seen: {', '.join(hidden)}.")
    linked = SYMLINK in (change.pre_mode, change.post_mode) and "whole" in kinds
    if linked:
        yield flag("link", f"{shown} is a link to another place.")
    elif "whole" in kinds and any(
        image is not None and decode_text(image) is None for image in (change.pre, change.post)
    ):
        yield flag("binary", f"{shown} is no text, so what is in it cannot be shown.")
    if change.post_mode == EXECUTABLE and change.pre_mode != EXECUTABLE and kinds & {"whole", "mode"}:
        yield flag("executable", f"{shown} becomes a program that can be run.")
