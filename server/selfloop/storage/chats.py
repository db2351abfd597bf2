"""The chat files of a workspace, `.evo/chat/<name>.md`, and which answers are still to be written into them.

Invariant: a row says that an answer is owed to a file; it goes only once the whole answer stands there, so a killed
worker's successor knows what to finish. How far an answer has come stands in the file itself, beside its text: no
write of two places could keep them in step.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from attrs import frozen

from selfloop.storage.disk import PRIVATE_FOLDER, printable, saying, stamp, write_file
from selfloop.storage.store import Store

FOLDER = "chat"
MOST_BYTES = 32 << 20
"""A larger file is none that a person writes in."""

_TABLE = """
    CREATE TABLE IF NOT EXISTS chat_answers (
        turn_id TEXT PRIMARY KEY,
        session_id TEXT NOT NULL,
        file TEXT NOT NULL,
        words TEXT NOT NULL,
        after INTEGER NOT NULL,
        placed INTEGER NOT NULL DEFAULT 0
    )
"""


@frozen
class Owed:
    """An answer that a chat file does not have to its end yet."""

    turn_id: str
    session_id: str
    file: str
    """The file's name in `.evo/chat/`."""
    words: str
    """What was sent, exactly as it stood in the file."""
    after: int
    """The session's newest `seq` before it was sent."""
    placed: bool = False
    """The file was given a place for the answer."""


class Chats:
    """The chat files of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.root / FOLDER
        store.create(_TABLE)

    # Files

    def create(self, text: str, *, key: str | None = None) -> Path:
        """Make a new file, named by the present time, and return its path.

        Raises:
            StoreError: it could not be made.
        """
        with saying("The chat file could not be made"):
            self.folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            path = self.folder / f"{stamp()}.md"
            write_file(path, text.encode())
        self.store.note_outcome(key)
        return path

    def read(self, name: str) -> str | None:
        """Return a file's text as it is on the disk; None where there is no such regular file of UTF-8."""
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
                return None
            try:
                return file.read().decode("utf-8")
            except UnicodeDecodeError:
                return None

    def replace(self, name: str, before: str, after: str) -> bool:
        """Give a file another text, if it still has the one it had; tells whether it did.

        Raises:
            StoreError: it could not be written.
        """
        if self.read(name) != before:
            return False
        with saying(f"The answer could not be written to the chat file {name}"):
            write_file(self.folder / name, after.encode())
        return True

    # Answers

    def owe(self, owed: Owed) -> None:
        """Note that an answer is to be written."""
        with self.store.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO chat_answers VALUES (?, ?, ?, ?, ?, ?)",
                (owed.turn_id, owed.session_id, owed.file, printable(owed.words), owed.after, int(owed.placed)),
            )

    def owed(self, file: str | None = None) -> list[Owed]:
        """Return what is still to be written (into one file), in the order in which it was asked for."""
        rows = self.store.query("SELECT * FROM chat_answers ORDER BY rowid")
        return [
            Owed(row["turn_id"], row["session_id"], row["file"], row["words"], row["after"], bool(row["placed"]))
            for row in rows
            if file in (None, row["file"])
        ]

    def placed(self, turn_id: str) -> None:
        """Note that the file has a place for an answer."""
        with self.store.transaction() as connection:
            connection.execute("UPDATE chat_answers SET placed = 1 WHERE turn_id = ?", (turn_id,))

    def paid(self, turn_id: str) -> None:
        """Note that nothing more of an answer is to be written."""
        with self.store.transaction() as connection:
            connection.execute("DELETE FROM chat_answers WHERE turn_id = ?", (turn_id,))
