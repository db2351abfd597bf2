"""What a judgement of a candidate says: one result for each layer that ran, and a digest that an approval is bound to.

Invariant: a report is accepted only if all six layers ran and passed. A layer that did not run is unknown, and unknown
is a rejection. The digest covers all of the report in a canonical form, so that no other evidence has the same one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
from attrs import asdict, frozen

LAYERS: dict[str, str] = {
    "G1": "What was changed may change, and hides nothing",
    "G2": "Lint and types under the parent's configuration",
    "G3": "The parent's tests on the candidate's code, with controls that must fail",
    "G4": "The real worker, started as it would be live, against a scripted model",
    "G5": "Random probes of the policy core, parent against candidate",
    "G6": "No secret leaves, and nothing is touched that the parent does not touch",
}
"""Every layer's title by name, in the order in which they run: cheap ones first."""


@frozen
class LayerResult:
    """What one layer found."""

    name: str
    """`G1` to `G6`."""
    title: str
    passed: bool
    reason: str
    """One sentence."""
    details: tuple[str, ...] = ()
    """What else a reader may want: each finding, each test, each input that differs."""
    seconds: float = 0.0


@frozen
class JudgeReport:
    """The evidence on one candidate."""

    tree: str
    """The git tree hash of the candidate's folder."""
    parent_tree: str
    seed: int
    """With it the same random controls and probes come again."""
    layers: tuple[LayerResult, ...]
    """Those that ran, in order; the last one is the one that failed, if any did."""
    versions: dict[str, str]
    """Of the interpreter and the tools that judged."""
    started_at: str
    """ISO 8601, UTC."""
    seconds: float

    @property
    def accepted(self) -> bool:
        """Whether every layer ran and passed."""
        return tuple(layer.name for layer in self.layers) == tuple(LAYERS) and all(one.passed for one in self.layers)

    @property
    def reason(self) -> str:
        """One sentence: why it was rejected (of the first layer that failed), or that it was not."""
        failed = next((layer for layer in self.layers if not layer.passed), None)
        if failed is not None:
            return f"{failed.name}: {failed.reason}"
        missing = [name for name in LAYERS if name not in {layer.name for layer in self.layers}]
        if missing:
            return f"Rejected, because it is unknown what {', '.join(missing)} would find."
        return "All six layers ran and passed."

    @property
    def digest(self) -> str:
        """The sha256, in hex, of the report's canonical JSON."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self, recurse=True)

    @staticmethod
    def from_json(values: dict[str, Any]) -> JudgeReport:
        """Read what `to_json` wrote.

        Raises:
            msgspec.ValidationError: it is no report.
        """
        return msgspec.convert(values, JudgeReport)
