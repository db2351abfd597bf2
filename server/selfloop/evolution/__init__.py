"""How Selfloop changes itself: what it learned, a change of its own source, and the proof that it may be adopted."""
