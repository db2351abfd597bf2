"""The miniature self."""
