"""What an audit found, as text for people, JSON for programs, and figures for Prometheus."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

from headrace.audit.findings import Findings, Kind, PipelineFindings
from headrace.metrics import AuditMetrics

SHOWN = 10


def as_text(name: str, findings: Findings, seconds: float) -> str:
    """For people: what was compared, which features differ, which mistake gives what was served, the first differences."""
    sample = f"{findings.sampled:,} events of the sample ({findings.share:.4g} of all entities)"
    lines = [f"app {name}: {findings.events:,} records read, {sample} in {seconds:.1f} s"]
    for pipeline, found in findings.pipelines.items():
        lines += _of_pipeline(pipeline, found)
    lines += [f"  {pipeline} not audited: {why}" for pipeline, why in findings.not_audited.items()]
    shown = findings.differences[:SHOWN]
    lines += [
        f"  {one.topic}-{one.partition} offset {one.offset}, {one.entity}: {one.feature} should be {_number(one.expected)},"
        f" served {_number(one.served)}"
        for one in shown
    ]
    if len(findings.differences) > len(shown):
        lines.append("  ... and more; --output json lists the first of each feature")
    return "\n".join(lines)


def _of_pipeline(pipeline: str, found: PipelineFindings) -> list[str]:
    if not found.vectors:
        lines = [f"  {pipeline}: nothing was compared; a larger --share may meet entities that have predictions"]
    else:
        lines = [f"  {pipeline}: {found.vectors:,} vectors compared, {found.wrong:,} wrong"]
    lines += [f"    {count:,} {why}, not compared" for why, count in found.not_compared.items()]
    for feature, count in found.mismatches.most_common():
        lines.append(f"    {feature} differs in {count:,} ({found.ratio(feature):.2%})")
    for one in found.explanations:
        lines.append(f"    {one.kind.value}: {one.says}; gives {one.explained:,} of {one.of:,} wrong values, of {', '.join(one.features)}")
    if found.wrong and not found.explanations:
        lines.append("    no known mistake gives what was served")
    return lines


def _number(value: float | None) -> str:
    return "absent" if value is None else repr(value)


def as_json(findings: Findings, seconds: float) -> str:
    """For programs."""
    return json.dumps(
        {
            "clean": findings.clean(),
            "compared": findings.compared(),
            "share": findings.share,
            "events": findings.events,
            "sampled": findings.sampled,
            "pipelines": {
                name: {
                    "vectors": found.vectors,
                    "wrong": found.wrong,
                    "mismatches": found.mismatches,
                    "mismatch_ratio": {feature: found.ratio(feature) for feature in found.mismatches},
                    "unjudged": found.unjudged,
                    "not_compared": found.not_compared,
                    "explanations": [asdict(one) for one in found.explanations],
                }
                for name, found in findings.pipelines.items()
            },
            "not_audited": findings.not_audited,
            "differences": [one._asdict() for one in findings.differences],
            "seconds": round(seconds, 3),
        }
    )


class Figures:
    """Hands the findings on to the metrics, as often as they grow."""

    def __init__(self, findings: Findings) -> None:
        self.metrics = AuditMetrics({name: found.features for name, found in findings.pipelines.items()}, [kind.value for kind in Kind])
        self._vectors: Counter[str] = Counter()
        self._mismatches: dict[str, Counter[str]] = {name: Counter() for name in findings.pipelines}

    def take(self, findings: Findings, now_ms: int) -> None:
        """What was found up to now."""
        for name, found in findings.pipelines.items():
            self.metrics.compared(name, found.vectors - self._vectors[name], found.mismatches - self._mismatches[name])
            self._vectors[name], self._mismatches[name] = found.vectors, found.mismatches.copy()
            shares: dict[str, float] = {}
            for one in found.explanations:
                shares[one.kind.value] = shares.get(one.kind.value, 0.0) + one.explained / one.of
            self.metrics.explained(name, shares)
        self.metrics.complete(now_ms)
