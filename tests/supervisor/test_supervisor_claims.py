"""Where the supervisor keeps things is where everybody else looks for them."""

import os
from pathlib import Path

import pytest

from selfloop.config import Folders
from selfloop.config import workspace_key as their_key
from selfloop.lsp.protocol import METHODS
from selfloop.supervisor.claims import Claims, data_folder, uri_path, workspace_key
from selfloop.supervisor.contract import READS, is_read

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SELFLOOP_HOME": "/some/where"},
        {"SELFLOOP_HOME": "relative/./place"},
        {"SELFLOOP_HOME": "~/home"},
        {"SELFLOOP_HOME": ""},
        {"XDG_DATA_HOME": "/data"},
        {"XDG_DATA_HOME": ""},
    ],
)
def test_the_data_folder_is_the_one_of_the_settings(monkeypatch, environment):
    for name in ("SELFLOOP_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Path(data_folder()) == Folders.of_user().data


def test_a_workspace_has_the_same_key_everywhere(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path, tmp_path / "link", tmp_path / "missing", Path(os.fsdecode(b"/tmp/\xff"))):
        assert workspace_key(str(path)) == their_key(path)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b%20c", "/a/b c"),
        ("file:///a/%C3%A9", "/a/é"),
        ("file:///a/é", "/a/é"),
        ("file:///a/%FF", os.fsdecode(b"/a/\xff")),
        ("file:/a", "/a"),
        ("FILE://localhost/a?q#f", "/a"),
        ("file://host/a", None),
        ("file:///a%00b", None),
        ("untitled:a", None),
        ("", None),
    ],
)
def test_only_file_uris_are_paths(uri, path):
    assert uri_path(uri) == path


def test_a_lock_is_held_once_and_free_again(tmp_path):
    one, two = Claims(str(tmp_path / "data")), Claims(str(tmp_path / "data"))
    workspace = str(tmp_path)
    assert one.take(workspace)
    assert one.take(workspace) is None
    assert one.holds(workspace)
    assert two.take(workspace) is None
    assert not two.holds(workspace)
    peer = two.join(workspace)
    assert peer is not None
    peer.close()
    one.release()
    assert two.join(workspace) is None
    assert two.take(workspace)
    two.release()


def test_a_lock_is_held_even_where_no_socket_can_be_made(tmp_path):
    one, two = Claims(str(tmp_path / "data")), Claims(str(tmp_path / "data"))
    (tmp_path / "data" / "run" / f"{workspace_key(str(tmp_path))}.sock").mkdir(parents=True)
    claim = one.take(str(tmp_path))
    assert claim is not None
    assert claim.listener is None
    assert two.take(str(tmp_path)) is None
    assert two.join(str(tmp_path)) is None
    one.release()


def test_a_folder_of_somebody_else_is_not_used_for_sockets(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "run").symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        Claims(str(tmp_path / "data")).take(str(tmp_path))


def test_what_only_reads_is_what_the_protocol_says():
    assert {name for name, method in METHODS.items() if method.reads} == READS
    assert is_read("textDocument/codeAction", {})
    assert is_read("codeAction/resolve", {})
    assert is_read("workspace/executeCommand", {"command": "selfloop.gate.list"})
    for method, params in (
        ("selfloop/gate/resolve", {}),
        ("workspace/executeCommand", {"command": "selfloop.gate.resolve"}),
        ("workspace/executeCommand", None),
        ("workspace/executeCommand", {"command": ["selfloop.gate.list"]}),
        ("unknown/method", {}),
    ):
        assert not is_read(method, params)
