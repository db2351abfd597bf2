"""A room of the miniature self."""
