"""The client's types are the server's."""

from __future__ import annotations

import pytest

from protocol_twin import TARGET, render


@pytest.mark.unit
def test_protocol_ts_is_the_twin_of_protocol_py() -> None:
    assert TARGET.read_text(encoding="utf-8") == render(), "run `python tests/protocol_twin.py`"
