"""What outlives the process: the workspace's `.evo/` and the user's rules and trust.

Invariant: `.evo/` is written nowhere else. A record is acknowledged only once it was written, so kill -9 at any moment
loses nothing that was acknowledged; fsync is paid at decisions only (`durable=True`), because it guards against a power
cut, not against a killed process.

    .evo/owner              proof that this user made the folder        ownership.py
    .evo/store.db           sessions, gates, memory, spend (SQLite)     store.py, sessions.py, memory.py
    .evo/blobs/             pre- and post-images, by their sha256       store.py
    .evo/sessions/<id>/     traj.jsonl and updates.jsonl                trajectories.py, journal.py (over log.py)
    .evo/outputs/<id>/      what a task leaves behind: task_N/
    .evo/updates.jsonl      the workspace's own stream
    .evo/loops/ prompts/    the user's, never written here
    <data>/                 owner.key, rules.json, trust.json           ownership.py, rules.py, trust.py

store.py stands on database.py and schema.py. What is written anywhere, or shown, first goes through secrets.py
(families.py has the shapes) or, while it is still being streamed, through secret_stream.py.
"""
