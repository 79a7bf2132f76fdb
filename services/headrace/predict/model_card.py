"""What people should know of a model version: whose it is, what it is for, what it was made from, how good it is, where it fails (pure).

It travels inside the .onnx as JSON and goes with the registration onto the control topic; `markdown` is how it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict.agreement import Agreement
from headrace.predict.signature import Signature

CARD = "headrace.card"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Texts, and measured numbers by name. Raises `DefinitionError` for anything else."""

    owner: str
    """Who answers for it: a team or a person."""
    contact: str = ""
    """How they are reached."""
    use: str = ""
    """What it is for, and what it is not for."""
    training: str = ""
    """What it was trained and judged on, in words; offsets and hashes are kept beside, as its lineage."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """How good it was there."""
    limits: str = ""
    """Where it fails, or was not tried."""

    def __post_init__(self) -> None:
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise DefinitionError(f"ModelCard: {name} is {type(getattr(self, name)).__name__}; write a text")
        if not self.owner.strip():
            raise DefinitionError("ModelCard: owner is empty; say who answers for the model")
        if not isinstance(self.metrics, Mapping):
            raise DefinitionError(f"ModelCard: metrics is {type(self.metrics).__name__}; write for example {{'AUC': 0.905}}")
        for name, value in dict[str, object](self.metrics).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise DefinitionError(f"ModelCard: metric {name!r} is {value!r}; write a finite number")
        object.__setattr__(self, "metrics", {str(name): float(value) for name, value in sorted(self.metrics.items())})

    def as_plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ModelCard:
        """The card in a JSON object or a TOML table. Raises `DefinitionError` naming the field that is wrong."""
        known = [one.name for one in fields(cls)]
        for name in plain:
            if name not in known:
                raise DefinitionError(f"ModelCard has no field {name!r}; it has {', '.join(known)}")
        if "owner" not in plain:
            raise DefinitionError("ModelCard: owner is missing; say who answers for the model")
        return cls(**plain)

    def entries(self) -> dict[str, str]:
        """The entry for `metadata_props`: the same card gives the same bytes."""
        return {CARD: json.dumps(self.as_plain(), separators=(",", ":"), sort_keys=True)}


_TEXTS = ("owner", "contact", "use", "training", "limits")


def card_in(metadata: Mapping[str, str]) -> ModelCard | None:
    """The card in a file's `metadata_props`; None where there is none. Raises `SignatureMismatch` for what is none."""
    if CARD not in metadata:
        return None
    try:
        return ModelCard.from_plain(json.loads(metadata[CARD]))
    except (ValueError, TypeError, AttributeError, DefinitionError) as error:
        raise SignatureMismatch(f"{CARD!r} in the model's metadata_props cannot be read ({error}): stamp it again with card=") from error


def markdown(
    signature: Signature, card: ModelCard | None, lineage: Mapping[str, Any] | None = None, agreement: Agreement | None = None
) -> str:
    """Everything a version says of itself, as Markdown."""
    parts = [f"# {_line(signature.name)}, version {_line(signature.version)}"]
    if card is None:
        parts.append("Nobody wrote a card for it: `headrace.models.stamp(..., card=ModelCard(owner=...))`.")
    else:
        parts.append(f"Owner: {_line(card.owner)}" + (f" ({_line(card.contact)})" if card.contact else ""))
        told = (("Use", card.use), ("Training", card.training), ("Limits", card.limits))
        parts += [f"## {title}\n\n{text.strip()}" for title, text in told if text.strip()]
        if card.metrics:
            rows = [f"| {_line(name)} | {value:.6g} |" for name, value in card.metrics.items()]
            parts.append("\n".join(["## Metrics\n", "| metric | value |", "| --- | ---: |", *rows]))
    parts.append("\n".join(["## What it takes and gives\n", *_takes(signature, agreement)]))
    if lineage is not None:
        parts.append("\n".join(["## Trained on\n", *_trained_on(lineage)]))
    return "\n\n".join(parts) + "\n"


def _takes(signature: Signature, agreement: Agreement | None) -> list[str]:
    views = ", ".join(f"{view.name} v{view.version} ({view.fingerprint[:16]})" for view in signature.views) or "no view"
    said = [
        f"- {len(signature.features)} features from {_line(views)}",
        f"- output `{signature.output}`, a {signature.kind}"
        + (f" of class {signature.class_index}" if signature.kind == "probability" else ""),
    ]
    return [*said, f"- against the trained model it is off by {agreement}"] if agreement is not None else said


def _trained_on(lineage: Mapping[str, Any]) -> list[str]:
    said = [f"- {lineage['rows']:,} rows"] if isinstance(lineage.get("rows"), int) else []
    said += [
        f"- {title} `{lineage[name]}`"
        for name, title in (("hash", "content"), ("fingerprint", "definition"), ("recipe", "recipe"))
        if name in lineage
    ]
    for topic, spans in sorted(lineage.get("offsets", {}).items()):
        ends = ", ".join(f"{number}: {span[0]} to {span[1]}" for number, span in sorted(spans.items(), key=lambda one: int(one[0])))
        said.append(f"- {_line(topic)}, offsets by partition: {ends}")
    return said or ["- " + _line(json.dumps(dict(lineage), sort_keys=True))]


def _line(text: str) -> str:
    """A text that stays on its line and in its cell."""
    return " ".join(text.split()).replace("|", "\\|")
