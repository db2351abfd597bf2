"""Which paths are protected: those that run, or decide what runs, without anyone looking at them again. Beside them,
which are tests, and which would run in place of what runs the tests.

Invariant: a name is judged by what *any* file system or tool may take it for (upper case, full width, dotless i,
trailing dots and blanks, invisible characters, short names, streams), whether it exists or not. A write there is always
shown to a human as high risk, and is never part of what runs unattended.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

# Compared with every component of a path, after `plain_name`. A star stands for anything.
_PROTECTED = (
    # The repository, and what its hosts run.
    ".git*", "git~*", "gi????~*", ".hg", ".hgignore", ".svn", ".jj", ".husky", ".githooks", ".pre-commit-config.y*ml",
    "lefthook.y*ml", ".lefthook*", ".circleci", ".travis.y*ml", ".ci", ".cirrus.*", ".buildkite", ".drone.y*ml",
    ".woodpecker*", ".gitea", ".forgejo", "appveyor.y*ml", ".appveyor.y*ml", "azure-pipelines*",
    "bitbucket-pipelines*", "jenkinsfile*", ".semaphore", ".teamcity", "renovate.json*", ".renovaterc*",
    "codecov.y*ml", "codeowners",
    # Editors, and agents: settings that start programs, and instructions that are obeyed.
    ".vscode*", ".idea", "*.code-workspace", "*.sublime-project", ".vs", ".zed", ".fleet", ".nova", ".vimrc", ".exrc",
    ".nvimrc", ".nvim.lua", ".lvimrc", ".vim", ".nvim", ".emacs*", ".dir-locals*.el", ".editorrc", ".devcontainer*",
    ".cursor*", ".windsurf*", ".clinerules*", ".continue*", ".aider*", ".claude*", ".codex*", ".gemini*", ".mcp*",
    "mcp.json", ".roo*", ".evo*", "agents*.md", "claude*.md", "gemini.md", ".copilot*", ".gitpod*", ".replit", ".idx",
    # The environment, shells and credentials.
    ".env*", "*.env", ".direnv", ".bash*", ".profile", ".zsh*", ".zprofile", ".zlog*", ".kshrc", ".cshrc", ".tcshrc",
    ".login", ".logout", ".inputrc", ".xprofile", ".xinitrc", ".xsession*", ".config", ".local", ".ssh", ".aws",
    ".azure", ".kube", ".docker", ".gnupg", ".netrc", "_netrc", ".npmrc", ".yarnrc*", ".pnpm*", ".pypirc", ".pip",
    "pip.conf", "pip.ini", ".condarc", ".gemrc", ".curlrc", ".wgetrc", ".gdbinit*", ".lldbinit*", ".irbrc", ".pryrc",
    ".pythonrc*", ".rprofile", ".renviron", ".tool-versions", ".mise*", "mise*.toml", ".rtx.toml", ".asdfrc", ".nvmrc",
    ".python-version", ".node-version", ".ruby-version", ".npm", ".yarn", ".pnp.*", ".cargo", ".bundle", ".mvn",
    ".gradle", ".bazel*", ".ackrc", ".ripgreprc", ".screenrc", ".tmux.conf", ".mailcap", ".terraformrc",
    # Python that is run without being called.
    "conftest.py", "sitecustomize*", "usercustomize*", "*.pth", "*.egg-link", "*.dist-info", "*.egg-info",
    "site-packages", "dist-packages", "pyvenv.cfg", ".venv*", "venv", ".virtualenv", ".tox", ".nox", "node_modules",
    "bower_components",
    # Build scripts, and the files that name them.
    "makefile", "makefile.*", "gnumakefile", "bsdmakefile", "*.mk", "*.mak", "cmakelists.txt", "*.cmake",
    "cmakepresets.json", "cmakeuserpresets.json", "meson.build", "meson_options.txt", "sconstruct", "sconscript",
    "wscript", "build.bazel", "workspace.bazel", "module.bazel", "*.bzl", "buck", "configure", "configure.ac",
    "autogen.sh", "justfile", ".justfile", "*.just", "taskfile*.y*ml", "rakefile*", "*.rake", "gemfile*", "*.gemspec",
    "guardfile", "procfile*", "dockerfile", "dockerfile.*", "*.dockerfile", "containerfile*", "docker-compose*",
    "compose.y*ml", "docker-bake.*", "vagrantfile", "tiltfile", "skaffold.y*ml", "earthfile", "fastfile", "podfile*",
    "package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "pnpm-workspace.yaml",
    "bun.lock*", "bunfig.toml", "deno.json*", "deno.lock", "binding.gyp", "lerna.json", "nx.json", "turbo.json",
    "*.config.js", "*.config.cjs", "*.config.mjs", "*.config.ts", "*.config.mts", "*.config.cts", "gulpfile*",
    "gruntfile*", "jakefile*", ".eslintrc*", ".babelrc*", ".prettierrc*", ".mocharc*", ".stylelintrc*", ".swcrc",
    ".lintstagedrc*", ".commitlintrc*", ".huskyrc*", "pyproject.toml", "setup.py", "setup.cfg", "pytest.ini",
    ".pytest.ini", "tox.ini", "noxfile.py", "fabfile*", "dodo.py", "hatch_build.py", "hatch.toml", "uv.toml",
    "uv.lock", "poetry.lock", "poetry.toml", "pdm.toml", "pdm.lock", "pipfile*", "requirements*.txt", "ruff.toml",
    ".ruff.toml", "mypy.ini", ".mypy.ini", "pyrefly.toml", ".coveragerc", ".pylintrc", "pylintrc", ".flake8",
    "cargo.toml", "cargo.lock", "build.rs", "rust-toolchain*", "go.mod", "go.sum", "go.work*", "magefile*", "pom.xml",
    "build.gradle*", "settings.gradle*", "gradle.properties", "gradlew*", "mvnw*", "build.xml", "build.sbt", "*.sbt",
    "project.clj", "deps.edn", "build.zig*", "mix.exs", "mix.lock", "rebar.config*", "stack.yaml", "*.cabal", "dune",
    "dune-project", "package.swift", "*.xcodeproj", "*.pbxproj", "*.csproj", "*.fsproj", "*.vbproj", "*.vcxproj*",
    "*.sln*", "directory.build.*", "directory.packages.props", "*.props", "*.targets", "nuget.config", "global.json",
    "composer.json", "composer.lock", "shell.nix", "default.nix", "flake.nix", "flake.lock", ".ghci", "*.desktop",
    "autorun.inf", "desktop.ini",
)  # fmt: skip

_EXACT = frozenset(name for name in _PROTECTED if not set(name) & set("*?"))
_PATTERNS = tuple(name for name in _PROTECTED if set(name) & set("*?"))
_STREAM = re.compile(r":.*$", re.DOTALL)


def is_protected(path: str) -> bool:
    """Tell whether any component of a path is protected. The path need not exist, and is not normalised."""
    return any(_protected_name(part) for part in re.split(r"[/\\]", path))


_TEST_FOLDERS = {"test", "tests", "__tests__", "spec", "specs", "testing", "testdata"}
_TEST_FILE = re.compile(r"test_.+|.+_tests?\.[^.]+|.+[.-](?:test|spec)\.[^.]+|.*Tests?\.(?:java|kt|cs|swift)")


def is_test(path: str) -> bool:
    """Tell whether a path looks like a test of the project, by the names that the common test runners look for."""
    *folders, name = re.split(r"[/\\]", path)
    return bool(_TEST_FOLDERS & {folder.casefold() for folder in folders}) or _TEST_FILE.fullmatch(name) is not None


_IMPORTED_FROM = frozenset({"src", "lib", "python"})
"""Folders from which Python often imports as from the root."""
_MODULE = (".py", ".pyw", ".pyc", ".pyd", ".so")
_AT_EVERY_START = frozenset({"unittest", "pytest", "_pytest", "sitecustomize", "usercustomize"})
"""Modules that no project calls its own, wherever they lie."""
_RUNNER_MODULES = frozenset(
    {
        "pluggy", "iniconfig", "packaging", "exceptiongroup", "tomli", "pygments", "xdist", "execnet", "pytest_cov",
        "pytest_asyncio", "pytest_timeout", "hypothesis", "coverage", "tox", "nox", "virtualenv", "nose", "nose2",
        "behave", "ruff", "mypy", "mypyc", "pyrefly", "pyright", "flake8", "pycodestyle", "pyflakes", "mccabe",
        "pylint", "astroid", "black", "isort", "pip", "setuptools", "wheel", "hatch", "hatchling", "poetry", "uv",
    }
)  # fmt: skip
"""What runs the tests and linters, and what those import themselves."""
_RUNNERS = frozenset(
    {
        "unittest", "pytest", "py.test", "tox", "nox", "nose2", "ruff", "mypy", "pyrefly", "pyright", "flake8",
        "pylint", "node", "npm", "npx", "pnpm", "yarn", "bun", "deno", "jest", "vitest", "mocha", "eslint", "biome",
        "tsc", "cargo", "clippy-driver", "go", "make", "just", "ctest", "mvn", "gradle", "gradlew", "dotnet", "hatch",
        "poetry", "uv", "shellcheck",
    }
)  # fmt: skip
_PYTHON = re.compile(r"python[\d.]*")
_PROGRAM = re.compile(r"(.+?)(?:\.exe|\.cmd|\.bat)?")


def is_shadow(path: str) -> bool:
    """Tell whether a file would run, or be imported, in place of a test runner or of Python's own modules.

    `python -m` and the test runners put the root, and often `src`, before everything else that they import from.
    """
    parts = [plain_name(part) for part in re.split(r"[/\\]", path) if part not in ("", ".")]
    if not parts:
        return False
    if not parts[-1].endswith(_MODULE):
        program = _PROGRAM.fullmatch(parts[-1])
        return program is not None and (program[1] in _RUNNERS or _PYTHON.fullmatch(program[1]) is not None)
    modules = [*parts[:-1], parts[-1].partition(".")[0]]
    for place, module in enumerate(modules):
        if module in _AT_EVERY_START:
            return True
        first = place == 0 or modules[place - 1] in _IMPORTED_FROM
        if first and (module in _RUNNER_MODULES or module in sys.stdlib_module_names):
            return True
    return False


def protected_among(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the outermost protected files and folders among paths, and each file that a jail masks, in order."""
    places: dict[str, None] = {}
    for path in paths:
        parts = path.split("/")
        for depth, part in enumerate(parts, 1):
            if _protected_name(part):
                places["/".join(parts[:depth])] = None
                break
        if masked_in_jail(path):
            places[path] = None
    return tuple(sorted(places))


def masked_in_jail(path: str) -> bool:
    """Tell whether a file holds secrets by its name (`.env*`), so that no command may read it."""
    return plain_name(path.rpartition("/")[2]).startswith(".env")


@lru_cache(maxsize=65536)
def plain_name(name: str) -> str:
    """Return a name as the most forgiving file system would read it."""
    if name.isascii():
        plain = name.lower()
    else:
        wide = unicodedata.normalize("NFKC", name)
        visible = "".join(letter for letter in wide if unicodedata.category(letter) not in ("Cf", "Cc", "Mn"))
        # Upper case first: a dotless i (ı) has no case folding of its own, but its capital is a plain I.
        plain = unicodedata.normalize("NFKC", visible.upper()).casefold()
    return _STREAM.sub("", plain).rstrip(" .\t\r\n") or plain


@lru_cache(maxsize=65536)
def _protected_name(name: str) -> bool:
    if name in ("", ".", ".."):
        return False
    plain = plain_name(name)
    return plain in _EXACT or any(fnmatchcase(plain, pattern) for pattern in _PATTERNS)
