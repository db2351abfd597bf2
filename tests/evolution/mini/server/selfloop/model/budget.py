"""What a turn may use: reserved before it is spent, settled after."""

from __future__ import annotations

from selfloop.errors import BudgetExceeded


class Budget:
    """Tokens of one turn."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.spent = 0
        self.calls = 0

    def reserve(self, tokens: int) -> int:
        """Set tokens aside for a call.

        Raises:
            BudgetExceeded: it would cross the limit; nothing is set aside.
        """
        if tokens < 0 or self.spent + tokens > self.most:
            raise BudgetExceeded(f"The budget of {self.most} tokens does not allow another call.")
        self.spent += tokens
        self.calls += 1
        return tokens

    def settle(self, reserved: int, used: int | None) -> int:
        """Charge what was used; unknown use costs the whole reservation."""
        charged = reserved if used is None else used
        self.spent += charged - reserved
        return charged
