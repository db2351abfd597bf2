"""What may run unasked without a jail: the corpus, and the principle behind it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfloop.sandbox.allowed import PROGRAMS
from selfloop.sandbox.policy import classify

pytestmark = pytest.mark.unit

CORPUS = Path(__file__).parent.parent / "corpus" / "shell_policy.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_corpus_of_commands(case: dict[str, Any]) -> None:
    verdict = classify(case["cmd"])
    assert verdict.auto is (case["expect"] == "auto-ok"), verdict
    assert verdict.reason.endswith(".")


@pytest.mark.parametrize("command", [
    "ls", "ls -la src", "pwd", "cat a.txt", "head -5 f", "head -n 5 f | tail -n 2", "wc -l f.txt", "rg -n foo src",
    "rg foo", "ls; pwd", "grep -rn 'a\\.b' . | head -20", "find . \\( -name a -o -name 'b*' \\) -type f",
    'cat file\\ name.txt', "[ -f x ] && echo yes", "printf '%s\\n' hi", "sort -t , -k2,2n f | uniq -c",
    "cut -d: -f1 f", "cat f | tr a-z A-Z", "grep --include='*.py' -r foo .", "diff -u a b", "stat -c '%s %n' f",
    'echo "it\'s \\$5"', "date +%Y-%m-%d", "command -v python3", "ls -- -x",
])  # fmt: skip
def test_plain_reading_runs_unasked(command: str) -> None:
    assert classify(command).auto, classify(command)


@pytest.mark.parametrize("command", [
    "ls *.py", "ls ~", "ls $HOME", "ls `pwd`", "ls {a,b}", "ls > x", "ls 2>/dev/null", "ls &", "a=b ls", "(ls)",
    "! ls", "ls |& cat", 'ls\nrm x', 'ls\\\nx', 'ls\rrm', "ls 'a", 'ls "a', 'ls \\', "| ls", "ls |", "ls && ", "",
    " ", "#x", "ls # x", "/bin/ls", "./ls", 'l\\s', "'ls'", "ls -L x", "ls --dereference", "cat -", "cat",
    "sort -oM f", "sort --output=M f", "sort --outp=M f", "sort --files0-from=x", "sort -T d f", "uniq a b",
    "tail -f f", "tail -F f", "tail --follow f", "tail -n 3f f", "wc --files0-from=x", "du --files0-from=x",
    "du -L .", "du -D x", "grep -f x y", "grep foo", "grep -R foo .", "grep -rS foo .", "rg -f x", "rg -L x",
    "rg -z x", "rg --pre=x y", "rg --search-zip x", "rg --hostname-bin=x y", "rg --follow x", "find . -exec x",
    "find . -execdir x", "find . -ok x", "find . -delete", "find . -fprint x", "find . -fprintf x y", "find . -fls x",
    "find -L .", "find -H .", "find . -newer /x", "find . -files0-from x", "find -D all .", "find . -name",
    "cat ../x", "cat a/../../x", "cat /x", "cat ~/x", "cat .env", "cat a/.ENV.local", "cat .git/config",
    "cat .evo/store.db", "find / -name x", "file -C -m x", "file -f x", "file -z x", "tree -o x", "tree --fromfile",
    "tree -l", "xxd -r a", "xxd a b", "date -s x", "date 01010101", "date -r x", "date -f x", "test -v x",
    "test a -nt b", "[ -f x", "[ -v x ]", "printf -v x y", "printf %b x", "printf '\\x41'", "echo -e x",
    "echo 'a\\nb'", "command ls", "command -p ls", "type -f x y/z", "which ../x", "hostname", "hostname x",
    "git status", "git log", "sed p f", "awk 1 f", "python3 -V", "env", "xargs ls", "tee", "less f", "sleep 1",
    "cd src", "export", "set", "source x", "exec ls", "ls && cd ..", "jq . f", "man ls", "seq 1 9999999", "tr a b",
    "column -t", "stat -L x", "readlink -m x /y", 'ls \xa0', 'ls \u2028', 'ls \x00', 'ls \x7f', "1s",
])  # fmt: skip
def test_whatever_is_not_listed_asks(command: str) -> None:
    assert not classify(command).auto


def test_a_link_that_leads_outside_is_not_read_unasked(tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "secret").write_text("SECRET")
    (tmp_path / "ws" / "in").write_text("x")
    (tmp_path / "ws" / "link").symlink_to("../secret")
    (tmp_path / "ws" / "away").symlink_to(tmp_path)
    ws = tmp_path / "ws"
    assert classify("cat in missing", ws).auto
    for command in (
        "cat link",
        "cat in link",
        "cat away/secret",
        "ls away",
        "grep -r x away",
        "find away -name x",
        "head -n1 ./link",
    ):
        assert classify(command).auto
        assert not classify(command, ws).auto


SIGNS = """-o -exec -- - ' " \\ $(touch M) `touch M` ; && || | & > < M touch { } * ~
    -e -v $X # ! [ ] -name = M=1 .. /M -oM"""
WORDS = st.sampled_from([*PROGRAMS, *SIGNS.split(), "a", "'a b'", '"x y"', "\n", "--output=M"])


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6), st.sampled_from([" ", "", "\t"]))
def test_what_runs_unasked_leaves_nothing_behind(words: list[str], space: str) -> None:
    """Whatever is thrown together: if it may run unasked, then running it writes nothing."""
    import tempfile

    command = space.join(words)
    if not classify(command).auto:
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a").write_text("x\n")
        subprocess.run(
            ["bash", "-c", command], cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, timeout=10, check=False
        )
        assert sorted(path.name for path in Path(folder).iterdir()) == ["a"], command
