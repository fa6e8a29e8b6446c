"""What a stage will do to the weights and activations, said before it trains."""

from __future__ import annotations

from rich.console import Console

from bitpress.quantize import ActivationPolicy, AppliedPolicy


def print_policy(console: Console, name: str, applied: AppliedPolicy) -> None:
    """What is quantized and how, and everything that stays fp32, before training starts."""
    by_scheme: dict[tuple[str, int, str], list[int]] = {}
    for row in applied.report():
        if row.kind == "weight" and row.scheme != "fp32":
            by_scheme.setdefault((row.scheme, row.bits, row.group), []).append(row.parameters)
    lines = [f"stage {name}:"]
    for (scheme, bits, group), counts in by_scheme.items():
        kind = f"{scheme}, {bits} bits" if scheme in ("uniform", "codebook") else scheme
        shared = "table" if scheme == "codebook" else "scale"
        lines.append(f"  {kind}, one {shared} a {group}: {len(counts)} tensors, {sum(counts):,} parameters")
    lines.append(f"  activations: {activations_in_words(applied.policy.activations)}")
    left: dict[str, list[tuple[str, int]]] = {}
    for tensor in applied.left_fp32():
        left.setdefault(tensor.reason, []).append((tensor.name, tensor.parameters))
    for reason, tensors in left.items():
        total = sum(count for _, count in tensors)
        names = ", ".join(name for name, _ in tensors[:2]) + (
            f", … ({len(tensors)} tensors)" if len(tensors) > 2 else ""
        )
        lines.append(f"  stays fp32: {names}: {total:,} parameters ({reason})")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def activations_in_words(policy: ActivationPolicy) -> str:
    """How activations are represented."""
    if policy.scheme == "uniform" and policy.range == "learned":
        return f"{policy.bits} bits, learned scale"
    if policy.scheme == "uniform":
        kind = "symmetric" if policy.symmetric else "asymmetric"
        return f"{policy.bits} bits, {kind}, range by {policy.range}"
    if policy.scheme == "binary":
        attention = {"bool": "Bi-Attention", "all": "attention to every key"}[policy.attention]
        centred = ", queries and keys off their running means" if policy.attention_centre == "running" else ""
        return f"signs, without a scale; {attention}{centred}"
    if policy.scheme == "elastic":
        threshold = {"none": "no threshold", "scalar": "a threshold"}.get(policy.threshold, "a threshold a channel")
        return f"{policy.bits} {'bit' if policy.bits == 1 else 'bits'}, {policy.scale} scale, {threshold}"
    return policy.scheme
