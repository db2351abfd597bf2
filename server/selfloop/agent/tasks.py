"""Whether a message begins a new task, and the folder in which a task leaves its results."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfloop.agent.fence import Fence
from selfloop.agent.history import History
from selfloop.agent.prompts import Prompts
from selfloop.errors import BudgetExceeded, ProviderError, StoreError
from selfloop.messages import Message, Reply

if TYPE_CHECKING:
    from selfloop.model.budget import Budget
    from selfloop.model.client import ModelClient

logger = logging.getLogger(__name__)

Judgement = Literal["NEW", "CONTINUE"]
_WORD = re.compile(r"\b(NEW|CONTINUE)\b")
_SHOWN_CHARS = 1_500
_ANSWER_TOKENS = 512
"""One word is wanted; a reasoning model needs room to come to it."""


async def judge(
    text: str, history: History, task: int, *, model: ModelClient, prompts: Prompts, fence: Fence, budget: Budget
) -> tuple[Judgement, Reply | None]:
    """Ask the model whether `text` begins a new task. Any failure, and any unclear answer, means that it continues."""
    said = [pin.text for pin in history.pins(len(history.entries)) if pin.task == task and pin.label == "The user"]
    reply = next((entry.message.content for entry in reversed(history.entries) if entry.kind == "reply"), "")
    question = "\n\n".join(
        [
            "The current task, as the user put it:\n" + fence.data(_brief("\n\n".join(said)), source="the user"),
            "The agent's last answer:\n" + fence.data(_brief(reply), source="the agent"),
            "The new message:\n" + fence.data(_brief(text), source="the user"),
            "Answer with one word: NEW or CONTINUE.",
        ]
    )
    messages = [Message("system", prompts.render("judge_task")), Message("user", question)]
    try:
        answer = await model.complete(messages, (), budget=budget, max_output_tokens=_ANSWER_TOKENS)
    except (ProviderError, BudgetExceeded) as error:
        logger.info("Whether a new task begins was not answered, so it continues: %s", error.message)
        return "CONTINUE", None
    words = set(_WORD.findall(answer.message.content))
    return ("NEW" if words == {"NEW"} else "CONTINUE"), answer


def task_folder(outputs: Path, number: int) -> Path:
    """Return the folder of a task's results, made if it is not there.

    Raises:
        StoreError: it cannot be made.
    """
    folder = outputs / f"task_{number}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder for the task's results, {folder}, could not be made ({error.strerror}), so the turn did not "
            "begin; free space or mend the permissions of .evo."
        ) from error
    return folder


def _brief(text: str) -> str:
    if len(text) <= _SHOWN_CHARS:
        return text or "(nothing)"
    return f"{text[: _SHOWN_CHARS // 2]}\n[…]\n{text[-_SHOWN_CHARS // 2 :]}"
