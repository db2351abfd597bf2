"""Where reports go: standard output, a file, a web hook that fails and comes back; never a secret, never a redirect."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from selfloop.config import Folders
from selfloop.errors import InvalidInput
from selfloop.loops.report import Outcome, RoundReport, failed, proceeded, reported
from selfloop.loops.sinks import FileSink, HookSink, Route, StreamSink, deliver, read_routes


def report(outcome: Outcome | None = None, intent: str = "Look.", loop_id: str = "ci-sweeper") -> RoundReport:
    return RoundReport(
        run_id="run-7",
        loop_id=loop_id,
        intent=intent,
        level="L1-report",
        outcome=outcome or reported(),
        verified=True,
        input_tokens=1,
        output_tokens=2,
        started_at="2026-05-04T09:00:00Z",
        ended_at="2026-05-04T09:01:00Z",
    )


class Hook:
    """A web hook on loopback that gives the answers it was told to, then 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[str, dict[str, str], Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.got.append((self.path, dict(self.headers), body))
                status = hook.answers.pop(0) if hook.answers else 200
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/very-secret-path"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    one = Hook()
    yield one
    one.server.shutdown()
    one.server.server_close()


def to_hook(hook: Hook, **options: Any) -> Route:
    return Route(HookSink(hook.url, {"Authorization": "Bearer x"}, longest_wait_seconds=0.05, **options))


async def test_a_hook_gets_text_and_report_and_is_tried_again(hook: Hook) -> None:
    hook.answers = [503, 429]
    assert await deliver(report(), [to_hook(hook)]) == []
    assert len(hook.got) == 3
    path, headers, body = hook.got[-1]
    assert path == "/hook/very-secret-path"
    assert headers["Authorization"] == "Bearer x"
    assert {headers["Idempotency-Key"] for _, headers, _ in hook.got} == {"run-7"}
    assert body["text"].startswith("[L1-report] loop `ci-sweeper` (reported)\n")
    assert body["report"]["runId"] == "run-7"


async def test_a_hook_that_refuses_is_said_without_its_address(hook: Hook) -> None:
    hook.answers = [404]
    (sentence,) = await deliver(report(), [to_hook(hook)])
    assert len(hook.got) == 1, "what will not change is not tried again"
    assert "404" in sentence and "127.0.0.1" in sentence and "secret" not in sentence
    hook.answers = [500] * 9
    (sentence,) = await deliver(report(), [to_hook(hook, attempts=3)])
    assert "500" in sentence and len(hook.got) == 4


async def test_a_redirect_is_not_followed(hook: Hook) -> None:
    hook.answers = [307]
    (sentence,) = await deliver(report(), [to_hook(hook)])
    assert "307" in sentence
    assert len(hook.got) == 1


async def test_a_hook_that_is_not_there_holds_up_no_other_sink(tmp_path: Path) -> None:
    gone = Route(HookSink("http://127.0.0.1:9/hook", attempts=2, longest_wait_seconds=0.05))
    stream = io.StringIO()
    (sentence,) = await deliver(report(), [gone, Route(StreamSink(stream)), Route(FileSink(tmp_path / "new" / "r.md"))])
    assert "could not be reached" in sentence
    assert "loop `ci-sweeper`" in stream.getvalue()
    assert "loop `ci-sweeper`" in (tmp_path / "new" / "r.md").read_text()


async def test_files_are_added_to_as_text_or_as_lines_of_json(tmp_path: Path) -> None:
    routes = [Route(FileSink(tmp_path / "r.md")), Route(FileSink(tmp_path / "r.jsonl"))]
    for _ in range(2):
        assert await deliver(report(), routes) == []
    assert (tmp_path / "r.md").read_text() == (report().render() + "\n") * 2
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [json.loads(line)["runId"] for line in lines] == ["run-7", "run-7"]
    (tmp_path / "folder.md").mkdir()
    (sentence,) = await deliver(report(), [Route(FileSink(tmp_path / "folder.md"))])
    assert "could not be added" in sentence


async def test_no_secret_leaves(hook: Hook, tmp_path: Path) -> None:
    key = "sk-or-v1-" + "0123456789abcdef" * 4
    routes = [to_hook(hook), Route(FileSink(tmp_path / "r.jsonl"))]
    assert await deliver(report(intent=f"Use {key} and hunter22hunter"), routes, known_secrets=["hunter22hunter"]) == []
    gone = json.dumps(hook.got[0][2]) + (tmp_path / "r.jsonl").read_text()
    assert key not in gone and "hunter22" not in gone
    assert "[redacted]" in gone


async def test_a_clean_round_is_sent_only_where_everything_is_wanted(tmp_path: Path) -> None:
    some, all_of_it = io.StringIO(), io.StringIO()
    routes = [Route(StreamSink(some)), Route(StreamSink(all_of_it), frozenset({"ci-sweeper"}), True)]
    await deliver(report(proceeded()), routes)
    await deliver(report(failed("x"), loop_id="other"), routes)
    assert ("proceeded" in some.getvalue(), "other" in some.getvalue()) == (False, True)
    assert ("proceeded" in all_of_it.getvalue(), "other" in all_of_it.getvalue()) == (True, False)


# Settings


def settings(folders: Folders, text: str) -> None:
    folders.config.mkdir(parents=True, exist_ok=True)
    (folders.config / "settings.toml").write_text(text)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "data", tmp_path / "cache", tmp_path / "config")


def test_where_reports_go_stands_in_the_users_settings(folders: Folders) -> None:
    assert read_routes(folders) == ()
    settings(
        folders,
        """
        model = "x"
        [[reports]]
        to = "webhook"
        url = "https://chat.example/hook"
        headers = { Authorization = "x" }
        loops = ["ci-sweeper"]
        [[reports]]
        to = "file"
        path = "~/reports.md"
        all = true
        [[reports]]
        to = "stdout"
        """,
    )
    hook, file, stream = read_routes(folders)
    assert hook == Route(HookSink("https://chat.example/hook", {"Authorization": "x"}), frozenset({"ci-sweeper"}))
    assert file == Route(FileSink(Path.home() / "reports.md"), everything=True)
    assert stream == Route(StreamSink())
    assert "chat.example" not in repr(hook), "an address can be a secret"


@pytest.mark.parametrize(
    "text",
    [
        'reports = "x"',
        "[[reports]]",
        '[[reports]]\nto = "mail"',
        '[[reports]]\nto = "file"',
        '[[reports]]\nto = "file"\npath = "reports.md"',
        '[[reports]]\nto = "webhook"\nurl = "ftp://x"',
        '[[reports]]\nto = "webhook"\nurl = "https://"',
        '[[reports]]\nto = "webhook"\nurl = "https://x"\nheaders = { A = 1 }',
        '[[reports]]\nto = "stdout"\nurl = "https://x"',
        '[[reports]]\nto = "stdout"\nloops = "x"',
        '[[reports]]\nto = "stdout"\nall = "yes"',
        "[[reports",
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(folders: Folders, text: str) -> None:
    settings(folders, text)
    with pytest.raises(InvalidInput, match="no report is sent"):
        read_routes(folders)
