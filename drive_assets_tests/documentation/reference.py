"""`docs/configuration.md`, made from the config classes: what the launchpad shows of each asset, as a page."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.asset import declarations
from drive_assets.definitions import defs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
HEAD = """# Configuration

Made from the config classes by `make docs`; edit those.

Options are given in the launchpad, or in a YAML file by asset name: `drive-assets run --select checkpoint --config
training.yaml` with `checkpoint: {epochs: 100, batch_size: 256}`. A value out of range is refused before anything
runs. What is set by environment variables stands in [Settings](settings.md).
"""


def reference() -> str:
    """The page as Markdown."""
    graph = defs.resolve_asset_graph()
    parts = [HEAD]
    for name in declarations(graph.assets_defs):
        op = graph.get(dg.AssetKey(name)).assets_def.op
        rows = list(_rows(op.config_schema.as_field().config_type)) if op.config_schema else []
        if rows:
            lines = [f"| `{option}` | {kind} | {text} |" for option, kind, text in rows]
            parts.append("\n".join([f"## {name}\n", "| option | type | what |", "|---|---|---|", *lines]) + "\n")
    return "\n".join(parts)


def _rows(shape: Any, above: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, type and description of each option; of nested ones after the one that holds them."""
    for name, field in getattr(shape, "fields", {}).items():
        kind = field.config_type
        if getattr(kind, "fields", None) and kind.kind.name in ("STRICT_SHAPE", "PERMISSIVE_SHAPE"):
            yield from _rows(kind, f"{above}{name}.")
            continue
        text = (field.description or "").replace("|", "\\|").replace("\n", " ")
        yield f"{above}{name}", _kind(kind), text


def _kind(kind: Any) -> str:
    """In words. Options with a default may be left out, so that none tells that it may be null."""
    name = kind.kind.name
    if name == "SCALAR_UNION":
        return _kind(kind.scalar_type)
    if name == "ENUM":
        return "one of " + ", ".join(f"`{value.config_value}`" for value in kind.enum_values)
    if name == "ARRAY":
        return f"list of {_kind(kind.inner_type)}"
    if name == "NONEABLE":
        return _kind(kind.inner_type)
    if name == "MAP":
        return "mapping"
    return _NAMES.get(kind.given_name or "", kind.given_name or name.lower().replace("_", " "))


_NAMES = {"Int": "whole number", "Float": "number", "String": "text", "Bool": "true or false"}


if __name__ == "__main__":
    sys.stdout.write(reference())
