"""Where the agent works: git plumbing, the door for paths, the shadow repository, worktrees and the jail.

Invariant: commands and git run only in this room, and nothing here writes to the user's repository.
"""
