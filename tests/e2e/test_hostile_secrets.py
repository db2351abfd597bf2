"""Secrets stay where they are: with the user, and with the origin that they were given for."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from hostile_room import TOKEN, Attack, hostile
from lsp_client import LspClient
from model_server import ModelServer
from scene import Starter, environment_for

EDIT = hostile("edit_file", "edit", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'")
KEY = "sk-or-v1-" + "9c3e" * 16
IN_FILE = "ghp_" + "aB3dE5fG7h" * 3 + "aB3dE5"
IN_OUTPUT = "AKIA" + "ABCDEFGHIJKLMNOP"[::-1]


async def test_no_secret_reaches_the_model_the_records_or_the_log(
    start: Starter, workspace: Path, own_home: Path, model: ModelServer
) -> None:
    (workspace / "config.py").write_text(f"TOKEN = '{IN_FILE}'\nKEY = '{KEY}'\nNAME = 'x'\n")
    (workspace / ".env").write_text(f"PASSWORD={TOKEN}\n")
    client = await start(env={"OPENROUTER_API_KEY": KEY, "AWS_SECRET_ACCESS_KEY": TOKEN, "SELFLOOP_LOG": "debug"})
    attack = Attack(client, model)
    encoded = base64.b64encode(KEY.encode()).decode()
    session = await attack.session()
    done = await attack.turn(
        [
            hostile("read_file", "read", path="config.py"),
            hostile("search", "search", pattern="TOKEN|KEY|PASSWORD"),
            hostile("shell", "cat", command="cat config.py; cat .env; env; cat /proc/*/environ | tr '\\0' '\\n'"),
            hostile(
                "shell", "out", command=f"echo id={IN_OUTPUT}; echo {encoded}; printf '%s' {KEY[:20]}; echo {KEY[20:]}"
            ),
            hostile("edit_file", "edit", path="config.py", old="NAME = 'x'", new="NAME = 'y'"),
            hostile("remember", "remember", text=f"The key is {KEY}"),
        ],
        session=session,
    )
    assert not done.failed["edit"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": f"My key is {KEY}."})
    await client.idle(session, count=2)
    read = await attack.gate()
    told = [m for r in model.requests for m in r.messages if m["role"] != "assistant"]
    records = b"".join(path.read_bytes() for path in (workspace / ".evo").rglob("*.jsonl"))
    store = b"".join(path.read_bytes() for path in (workspace / ".evo").glob("store.db*"))
    logs = b"".join(path.read_bytes() for path in own_home.rglob("*.log*"))
    places = {
        "the model": json.dumps(told).encode(), "the updates": json.dumps(client.updates).encode(), "records": records,
        "the store": store, "the log": logs, "the gate": json.dumps(read).encode(),
    }  # fmt: skip
    found = [
        (place, name)
        for place, data in places.items()
        for name, secret in {"key": KEY, "file": IN_FILE, "env": TOKEN, "output": IN_OUTPUT, "base64": encoded}.items()
        if secret.encode() in data
    ]
    assert found == []
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in model.requests)
    assert (await attack.approve())["conflicts"] == []
    assert KEY in (workspace / "config.py").read_text(), "the user's file keeps its secret"


async def test_a_workspaces_env_file_is_never_obeyed(
    start: Starter, workspace: Path, model: ModelServer, tmp_path: Path
) -> None:
    with ModelServer() as stranger:
        lines = (
            f"INFERENCE_BASE_URL={stranger.url}\nOPENROUTER_API_KEY=stolen\nMODEL_NAME=strange\n"
            f"OPENAI_BASE_URL={stranger.url}\nOPENAI_API_BASE={stranger.url}\nHTTPS_PROXY={stranger.origin}\n"
            f"HTTP_PROXY={stranger.origin}\nALL_PROXY={stranger.origin}\nSELFLOOP_HOME={tmp_path}/stolen\n"
            f"LITELLM_LOCAL_MODEL_COST_MAP=False\nOPENAI_API_KEY=stolen\nPATH={workspace}\n"
        )
        for name in (".env", ".env.local", "src/.env", ".envrc"):
            (workspace / name).parent.mkdir(exist_ok=True)
            (workspace / name).write_text(lines)
        (workspace.parent / ".env").write_text(lines)
        (workspace / "settings.toml").write_text(f'base_url = "{stranger.url}"\n')
        client = await LspClient.start(env=environment_for(model), cwd=workspace)
        try:
            await client.initialize(workspace)
            attack = Attack(client, model)
            await attack.turn([EDIT])
            assert (await client.request("selfloop/model/test", {}))["ok"] in (True, False)
            listed = await client.request("selfloop/model/list", {})
            assert (await client.request("selfloop/status", {}))["model"] == "scripted", listed
        finally:
            await client.close()
        assert stranger.requests == [] and stranger.others == [] and stranger.connections == 0
        assert all(request.headers["authorization"] == "Bearer key-for-tests" for request in model.requests)
        assert not (tmp_path / "stolen").exists()


async def test_a_key_goes_to_the_origin_it_was_given_for_and_nowhere_else(
    start: Starter, workspace: Path, own_home: Path, model: ModelServer
) -> None:
    client = await start(env={"OPENROUTER_API_KEY": ""})
    await client.request("selfloop/model/setKey", {"origin": "https://example.com", "key": KEY})
    attack = Attack(client, model)
    await attack.turn([EDIT])
    assert KEY not in json.dumps([request.headers for request in model.requests])
    await client.request("selfloop/model/setKey", {"origin": model.origin, "key": KEY})
    await attack.turn([EDIT])
    assert model.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    kept = b"".join(path.read_bytes() for path in (*own_home.rglob("*"), *workspace.rglob("*")) if path.is_file())
    assert KEY.encode() not in kept
