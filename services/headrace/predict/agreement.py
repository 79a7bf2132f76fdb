"""Whether a model's file gives the scores that the trained model gave, and by how much it misses them (pure).

Differences are measured as the gate measures them: of probabilities as they are, of quantities against the largest score the trained model
gave. What float32 costs is 1e-7 for trees and linear models and up to some 1e-5 for networks, kernels and densities; a wrong output, class,
scaler or treatment of absent values costs more than 1e-3, in most rows. `TOLERANCE` stands between. A few rows may be further off: trees
that were trained on float64 take a row to another leaf where its value, as the float32 it is served as, has crossed a threshold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict.gate_limits import DEFAULT_LIMITS
from headrace.predict.signature import OutputKind
from headrace.types import Float64s

AGREEMENT = "headrace.agreement"
TOLERANCE = DEFAULT_LIMITS.golden_tolerance
SHARE, WORST = DEFAULT_LIMITS.golden_share, DEFAULT_LIMITS.golden_worst
"""The share of rows that may be further off than the tolerance, and how far: the gate asks no more and no less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The largest difference between the file and the trained model over some rows, and where it stands."""

    rows: int
    row: int
    """Where the largest difference stands, among the rows as they were given."""
    file: float
    """What the file gives there."""
    trained: float
    """What the trained model gave there."""
    worst: float
    """Their difference, against `scale`."""
    scale: float
    """1, or the largest score of a quantity."""
    beyond: int
    """How many rows differ by more than the tolerance."""
    tolerance: float

    def __str__(self) -> str:
        more = f", by more than {self.tolerance:g} in {self.beyond}" if self.beyond else ""
        return f"at most {self.worst:.3g} over {self.rows:,} rows{more} (row {self.row}: {self.file:.9g}, trained {self.trained:.9g})"

    def entries(self) -> dict[str, str]:
        """The entry for `metadata_props`."""
        return {AGREEMENT: json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)}


def differences(found: Float64s, trained: Float64s) -> Float64s:
    """How far each score is off; infinity where only one of the two is there."""
    with np.errstate(invalid="ignore"):
        off = np.abs(found - trained)
    off[np.isnan(off)] = np.inf
    off[~np.isfinite(found) & ~np.isfinite(trained)] = 0.0
    return off


def agreed(found: Float64s, trained: Float64s, kind: OutputKind, tolerance: float) -> Agreement:
    """How far they are apart. Raises `DefinitionError` where that is too far, naming the row that differs most and both numbers."""
    scale = 1.0 if kind is OutputKind.PROBABILITY else float(np.max(np.abs(trained))) or 1.0
    off = differences(found, trained) / scale
    row = int(np.argmax(off))
    agreement = Agreement(
        rows=len(off),
        row=row,
        file=float(found[row]),
        trained=float(trained[row]),
        worst=float(off[row]),
        scale=scale,
        beyond=int((off > tolerance).sum()),
        tolerance=tolerance,
    )
    if agreement.beyond > SHARE * len(off) or agreement.worst > max(WORST, tolerance):
        raise DefinitionError(
            f"the file gives {agreement.file:.9g} for golden row {row}, the trained model gave {agreement.trained:.9g}: they differ by "
            f"{agreement.worst:.3g}, and {agreement.beyond} of {len(off)} rows by more than {tolerance:g}; look at the output and class "
            "that are scored, at scalers left out of the export, and whether it was trained on float32 as it is served, and gave "
            "golden_scores of it (frame.values.astype(np.float32)); "
            "headrace.models.export_* keep thresholds and absent values as they were learned, tolerance= lets more pass"
        )
    return agreement


def agreement_in(metadata: Mapping[str, str]) -> Agreement | None:
    """What a stamped file says of it; None where it was stamped without the trained model's scores. Raises `SignatureMismatch`."""
    if AGREEMENT not in metadata:
        return None
    try:
        return Agreement(**json.loads(metadata[AGREEMENT]))
    except (ValueError, TypeError) as error:
        raise SignatureMismatch(f"{AGREEMENT!r} in the model's metadata_props cannot be read: stamp it again") from error
