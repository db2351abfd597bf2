"""The terminal: a client of the same server as the editor, by the same protocol.

Invariant: a command here can do nothing that an editor could not. It starts `selfloop serve` and talks to it. From our
own package it imports the protocol's types, updates, config and errors; besides, inside the functions that need them,
the trust list (the user's alone to change), the one function that runs git (`doctor`, and the demo's sample repository)
and the built-in offline model (`demo`).
"""
