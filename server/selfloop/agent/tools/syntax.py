"""Tells whether a change breaks what parsed before. Nothing is executed.

Invariant: only a file that was whole can be broken; a template, a newer dialect or a file in work is left alone.
"""

from __future__ import annotations

import ast
import json
import threading
import warnings

_filters = threading.Lock()
"""The filters of `warnings` are the process's: two threads that change them at once would not put them back."""
CHECKED_CHARS = 2_000_000


def breaks(path: str, before: str, after: str) -> str | None:
    """Return what is wrong with `after`, as one phrase with its line, if `before` was whole; else None."""
    fault = fault_in(path, after)
    return fault if fault is not None and fault_in(path, before) is None else None


def fault_in(path: str, text: str) -> str | None:
    """Return the first syntax error of a Python or JSON text; None: it parses, or its kind is not checked."""
    if len(text) > CHECKED_CHARS:
        return None
    if path.endswith((".py", ".pyi")):
        return _python_fault(text)
    if path.endswith(".json"):
        return _json_fault(text)
    return None


def _python_fault(text: str) -> str | None:
    try:
        with _filters, warnings.catch_warnings():
            # A dubious escape in the project's text is no business of ours.
            warnings.simplefilter("ignore")
            ast.parse(text)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None


def _json_fault(text: str) -> str | None:
    if not text.strip():
        return None
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}: {error.msg}"
    except RecursionError:
        return None
    return None
