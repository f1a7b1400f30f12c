"""`asset` declares an asset once: Dagster's own definition, and what `status`, checks, jobs and report pages need.

Everything about an asset stands at its function. Modules of a room are loaded by `drive_assets/definitions.py`, and
whatever lists assets derives from the declarations: there is no other place to register one.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.checks import DeclaredCheck
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, SPLITS
from drive_assets.reports.page import Page
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import PartitionCheck
from model.common.errors import DataError
from model.network.architectures import ARCHITECTURES

OWNERS, CODE_URL = "DRIVE_ASSETS_OWNERS", "DRIVE_ASSETS_CODE_URL"
GROUPS = ("1_recordings", "2_detection", "3_annotation", "4_labels", "5_splits", "6_training", "7_evaluation")
"""Dagster sorts groups by name: the number keeps the order of the pipeline."""
Column = tuple[str, str, str]
"""Name, type, description."""
EXAMPLE_KEYS: Mapping[dg.PartitionsDefinition | None, Mapping[str, str]] = {
    None: {},
    RECORDINGS: {"<recording>": "2024-05-31_08-15-00"},
    SPLITS: {"<split>": "train"},
    ARCHITECTURE_PARTITIONS: {"<architecture>": ARCHITECTURES[0]},
}
"""A valid partition key of each kind, and its placeholder in descriptions."""


@dataclass(frozen=True)
class Declaration:
    """What the product knows about an asset beyond its Dagster definition.

    `output` and `page` get the storage, and for a partitioned asset the partition key.
    """

    partitions: dg.PartitionsDefinition | None
    output: Callable[..., Path]
    """File or folder that exists once the asset is materialised."""
    page: Callable[..., Page | Path]
    """Report page: drawn when it is requested, or the HTML file that the asset wrote."""
    checks: Sequence[DeclaredCheck] = ()
    """Checks of its partitions."""
    data_version: Callable[[Path], str] | None = None
    """Reads from the output which data version of the splits it was made from."""
    outdated: Callable[[dg.DagsterInstance, Storage], str] | None = None
    """Says why the output is out of date, if Dagster's records cannot; empty if it is up to date."""
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Options that take minutes on a CPU, for the demo and the job `train_quick`."""

    def path(self, storage: Storage, key: str | None) -> Path:
        """The output of a partition, or of an asset without partitions."""
        return self.output(storage, key) if key else self.output(storage)


def asset(
    *,
    output: Callable[..., Path] | None = None,
    page: Callable[..., Page | Path] | None = None,
    checks: Sequence[DeclaredCheck] = (),
    data_version: Callable[[Path], str] | None = None,
    outdated: Callable[[dg.DagsterInstance, Storage], str] | None = None,
    quick: Mapping[str, Any] | None = None,
    columns: Iterable[Column] = (),
    example: str = "",
    description: str = "",
    **options: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Define an asset as `dg.asset` does, and declare what else is known about it; see `Declaration`.

    Args:
        columns: of the table in the output.
        example: a row or file name of the output.
        description: what goes in and comes out, in Markdown; by default the function's docstring.
        options: passed to `dg.asset`.

    Raises:
        dagster.DagsterInvalidDefinitionError: a part is missing, or contradicts another.
        DataError: the environment names invalid owners.
    """

    def declare(function: Callable[..., Any]) -> dg.AssetsDefinition:
        name, partitions = options.get("name", function.__name__), options.get("partitions_def")
        text = description or inspect.getdoc(function) or ""
        if output is None or page is None:
            raise _invalid(name, "output and page must both be given: the file that it writes, and its report page")
        _require(name, partitions, text, options, checks)
        stored = _stored(name, output, partitions)
        text += f" **Stored:** `{stored}` in the data root." + (f" **Example:** `{example}`." if example else "")
        metadata: dict[str, Any] = {"stored": stored, "dagster/code_references": _code_references(function)}
        if table := [dg.TableColumn(*column[:2], description=column[2]) for column in columns]:
            metadata["dagster/column_schema"] = dg.TableSchema(table)
        definition = dg.asset(
            description=text,
            owners=_owners(),
            metadata=metadata,
            check_specs=[check.spec(name, partitions) for check in checks],
            **options,
        )(function)
        _require_options(name, definition, quick or {})
        declaration = Declaration(partitions, output, page, checks, data_version, outdated, quick or {})
        function.__dict__["declaration"] = declaration
        return definition

    return declare


def declaration(definition: dg.AssetsDefinition) -> Declaration | None:
    """The declaration of an asset; None if it was not defined by `asset`."""
    function = getattr(definition.op.compute_fn, "decorated_fn", None) if definition.is_executable else None
    return getattr(function, "declaration", None)


def declarations(definitions: Iterable[dg.AssetsDefinition]) -> dict[str, Declaration]:
    """The declarations of assets by name, in the order of the pipeline; definitions of checks are ignored."""
    assets = [definition for definition in definitions if len(definition.keys) == 1]
    assets.sort(key=lambda definition: (definition.group_names_by_key[definition.key], definition.key))
    declared = {definition.key.to_user_string(): declaration(definition) for definition in assets}
    return {name: found for name, found in declared.items() if found is not None}


def bound_checks(context: dg.AssetExecutionContext, storage: Storage) -> list[PartitionCheck]:
    """The checks of the asset that is being materialised, on the outputs in a data root."""
    declared = declaration(context.assets_def)
    specs = {spec.name: spec for spec in context.assets_def.check_specs}
    return [check.bind(specs[check.name], storage) for check in (declared.checks if declared else ())]


def _require(
    name: str,
    partitions: dg.PartitionsDefinition | None,
    text: str,
    options: Mapping[str, Any],
    checks: Sequence[DeclaredCheck],
) -> None:
    if not ("**In:**" in text and "**Out:**" in text):
        raise _invalid(name, "its docstring must name what goes in (**In:**) and what comes out (**Out:**)")
    if options.get("group_name") not in GROUPS:
        raise _invalid(name, f"group_name is {options.get('group_name')!r}, expected one of {', '.join(GROUPS)}")
    for part in ("code_version", "kinds"):
        if not options.get(part):
            raise _invalid(name, f"{part} is missing")
    if partitions not in EXAMPLE_KEYS:
        raise _invalid(name, "partitions_def must be one of drive_assets/partitions.py")
    if checks and partitions is None:
        raise _invalid(name, "checks holds checks of partitions, but it has none; use dg.asset_check")


def _require_options(name: str, definition: dg.AssetsDefinition, quick: Mapping[str, Any]) -> None:
    known = getattr(definition.op.config_schema.as_field().config_type, "fields", None) or {}
    if unknown := sorted(quick.keys() - known.keys()):
        raise _invalid(name, f"quick sets {', '.join(unknown)}, which its config does not have")


def _invalid(name: str, problem: str) -> dg.DagsterInvalidDefinitionError:
    return dg.DagsterInvalidDefinitionError(f"Asset {name}: {problem}.")


def _stored(name: str, output: Callable[..., Path], partitions: dg.PartitionsDefinition | None) -> str:
    """The place of the output below the data root, with a placeholder for the partition."""
    keys = EXAMPLE_KEYS[partitions]
    root = Path("/")
    try:
        path = str(output(Storage(data_root=str(root), inbox_root=""), *keys.values()).relative_to(root))
    except (TypeError, ValueError) as error:
        raise _invalid(name, f"output must return a path below the data root ({error})") from error
    for placeholder, key in keys.items():
        path = path.replace(key, placeholder)
    return path


def _owners() -> list[str]:
    """`DRIVE_ASSETS_OWNERS`: mail addresses, or teams as team:name, separated by commas."""
    owners = [owner.strip() for owner in os.environ.get(OWNERS, "").split(",") if owner.strip()]
    wrong = [owner for owner in owners if "@" not in owner and not owner.startswith("team:")]
    if wrong:
        raise DataError(f"{OWNERS} names {', '.join(wrong)}: expected mail addresses, or teams as team:name.")
    return owners


def _code_references(function: Callable[..., Any]) -> dg.CodeReferencesMetadataValue:
    """Where the asset's code is: below `DRIVE_ASSETS_CODE_URL`, else the local file."""
    path, line = Path(inspect.getfile(function)), function.__code__.co_firstlineno
    root = Path(__file__).parents[1]
    label = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    base = os.environ.get(CODE_URL, "").strip().rstrip("/")
    reference = (
        dg.UrlCodeReference(url=f"{base}/{label}#L{line}", label=label)
        if base
        else dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label)
    )
    return dg.CodeReferencesMetadataValue(code_references=[reference])
