"""The process that the editor starts: it owns the editor's pipes and outlives every worker."""
