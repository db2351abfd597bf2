"""The base of everything that travels between processes."""

from __future__ import annotations

import msgspec


class Wire(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Base of everything that travels: camelCase, defaults left out, unknown fields ignored."""
