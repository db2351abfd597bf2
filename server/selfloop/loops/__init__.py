"""Governed loops: recurring work of an agent with an intent, a level, a cadence, a budget, a maker, a checker, a gate
and a record."""
