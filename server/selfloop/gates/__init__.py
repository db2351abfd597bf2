"""Where a model's wish meets the user's will: proposals, decisions, and how approved changes reach the user's files."""
