"""Answers the calls that nobody will carry out any more, so that the next request is well-formed.

Invariants: a call that may have taken effect is never answered as if it had not. What a restart cut off is made again
only where twice is the same as once.
"""

from __future__ import annotations

from selfloop.agent.desk import Desk
from selfloop.agent.reporting import result_data
from selfloop.agent.tools.files import DeleteFile, EditFile, ListFiles, ReadFile, WriteFile
from selfloop.agent.tools.recall import Plan, Recall
from selfloop.agent.tools.search import Search
from selfloop.agent.tools.tool import Observation
from selfloop.agent.tools.toolbox import Toolbox
from selfloop.messages import ToolCall
from selfloop.updates import StopReason


def answer_interrupted(desk: Desk, turn_id: str, toolbox: Toolbox) -> None:
    """Answer what a killed worker may have carried out. What can be made again is left: the turn goes on with it."""
    state = desk.state
    for call in state.history.unanswered():
        if call.id in state.asked or (call.id not in state.begun and call.id not in state.withheld):
            return
        if call.id in state.begun and _twice_is_once(call, toolbox):
            return
        text = (
            "Interrupted: Selfloop was restarted while this ran. It may or may not have taken effect; look before "
            "you do it again."
            if call.id in state.begun
            else "Not carried out: Selfloop was restarted, and what was kept of the arguments is not whole. Call again."
        )
        _answer(desk, turn_id, call, text, toolbox)


def _twice_is_once(call: ToolCall, toolbox: Toolbox) -> bool:
    """Tell whether a call that may have been carried out does the same when it is carried out again."""
    _, params, _ = toolbox.read(call)
    match params:
        case ReadFile() | ListFiles() | Search() | Recall() | Plan() | DeleteFile():
            return True
        case WriteFile(start=start, end=end):
            return start is None and end is None
        case EditFile(old=old, new=new):
            return old not in new  # Else the old text is still there once the new one is.
    return False


def answer_rest(desk: Desk, turn_id: str, toolbox: Toolbox, stop: StopReason) -> None:
    """Answer every call that a turn has left when it ends."""
    state = desk.state
    if state.turn_id != turn_id:
        return
    ended = "The user cancelled the turn" if stop == "cancelled" else f"The turn was ended ({stop})"
    for call in state.history.unanswered():
        text = (
            f"{ended} while this ran. It may have taken effect in part."
            if call.id in state.begun - state.asked
            else f"{ended} before this was carried out."
        )
        _answer(desk, turn_id, call, text, toolbox)


def _answer(desk: Desk, turn_id: str, call: ToolCall, text: str, toolbox: Toolbox) -> None:
    observation = Observation(text, failed=True)
    tool, params, _ = toolbox.read(call)
    desk.record("tool_result", result_data(turn_id, call, observation))
    desk.channel().tool(call, tool, params, observation)
