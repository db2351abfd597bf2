"""What tests of the judge share: the miniature self is no part of this suite, and the jail is probed once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from selfloop.sandbox.isolation import Isolation, probe

collect_ignore = ["mini", "probes.py"]


@pytest.fixture(scope="session")
def isolation() -> Isolation:
    """What is really enforced here; without a jail nothing can be judged."""
    found = asyncio.run(probe())
    if found.level != "process":
        pytest.skip(found.detail)
    return found


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scratch for all judgements, so that the miniature parent is run once."""
    return tmp_path_factory.mktemp("judge")
