"""What can go wrong, as a sentence for the user."""

from __future__ import annotations


class Refused(Exception):
    """Raised when something may not be done; nothing was done."""


class BudgetExceeded(Refused):
    """Raised when a call would cross the budget."""
