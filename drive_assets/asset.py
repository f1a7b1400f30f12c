"""`asset` declares an asset once: Dagster's own definition, and what `status`, checks, jobs and report pages need.

Everything about an asset stands at its function. Modules of a room are loaded by `drive_assets/definitions.py`, and
whatever lists assets derives from the declarations: there is no other place to register one.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.checks import PartitionCheck
from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, SPLITS
from drive_assets.reports.page import Page
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Checks
from model.common.errors import DataError
from model.network.architectures import ARCHITECTURES

OWNERS, CODE_URL = "DRIVE_ASSETS_OWNERS", "DRIVE_ASSETS_CODE_URL"
GROUPS = (
    "1_recordings",
    "2_detection",
    "3_annotation",
    "4_labels",
    "5_splits",
    "6_training",
    "7_evaluation",
    "8_predictions",
    "9_car",
)
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

    output: Callable[..., Path]
    """File or folder that exists once the asset is materialised."""
    page: Callable[..., Page | Path]
    """Report page: drawn when it is requested, or the HTML file that the asset wrote."""
    partitions: dg.PartitionsDefinition | None
    checks: Sequence[PartitionCheck] = ()
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
    output: Callable[..., Path],
    page: Callable[..., Page | Path],
    group_name: str,
    code_version: str,
    kinds: set[str],
    partitions_def: dg.PartitionsDefinition | None = None,
    columns: Iterable[Column] = (),
    example: str = "",
    description: str = "",
    checks: Sequence[PartitionCheck] = (),
    data_version: Callable[[Path], str] | None = None,
    outdated: Callable[[dg.DagsterInstance, Storage], str] | None = None,
    quick: Mapping[str, Any] | None = None,
    **options: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Define an asset as `dg.asset` does, and declare what else is known about it; see `Declaration`.

    Args:
        columns: of the table in the output.
        example: a row or file name of the output.
        description: what goes in and comes out, in Markdown; by default the function's docstring.
        options: passed to `dg.asset`.

    Raises:
        dagster.DagsterInvalidDefinitionError: a part contradicts another.
    """
    declared = Declaration(output, page, partitions_def, checks, data_version, outdated, quick or {})

    def declare(function: Callable[..., Any]) -> dg.AssetsDefinition:
        name = options.get("name", function.__name__)
        text = description or inspect.getdoc(function) or ""
        _require("**In:**" in text and "**Out:**" in text, name, "its docstring must name **In:** and **Out:**")
        _require(group_name in GROUPS, name, f"group_name must be one of {', '.join(GROUPS)}")
        _require(partitions_def in EXAMPLE_KEYS, name, "partitions_def must be one of drive_assets/partitions.py")
        _require(not checks or partitions_def is not None, name, "without partitions, its checks are dg.asset_check")
        stored = _stored(name, declared)
        text += f" **Stored:** `{stored}` in the data root." + (f" **Example:** `{example}`." if example else "")
        metadata: dict[str, Any] = {"stored": stored, "dagster/code_references": _code_references(function)}
        if table := [dg.TableColumn(*column[:2], description=column[2]) for column in columns]:
            metadata["dagster/column_schema"] = dg.TableSchema(table)
        definition = dg.asset(
            description=text,
            group_name=group_name,
            code_version=code_version,
            kinds=kinds,
            partitions_def=partitions_def,
            owners=_owners(),
            metadata=metadata,
            check_specs=[check.spec(name, partitions_def) for check in checks],
            **options,
        )(function)
        known = getattr(definition.op.config_schema.as_field().config_type, "fields", None) or {}
        unknown = sorted(declared.quick.keys() - known.keys())
        _require(not unknown, name, f"quick sets {', '.join(unknown)}, which its config does not have")
        function.__dict__["declaration"] = declared
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


def bound_checks(context: dg.AssetExecutionContext, storage: Storage) -> Checks:
    """The checks of the asset that is being materialised, on the outputs in a data root."""
    declared = declaration(context.assets_def)
    return {check.name: partial(check.evaluate, storage) for check in declared.checks} if declared else {}


def _owners() -> list[str]:
    """Raises DataError if one in the environment is neither a team nor an email address."""
    owners = [owner.strip() for owner in os.environ.get(OWNERS, "").split(",") if owner.strip()]
    try:
        dg.AssetSpec("any", owners=owners)
    except dg.DagsterInvalidDefinitionError:
        expected = "expected email addresses or teams such as team:drives, separated by commas"
        raise DataError(f"{OWNERS} is {os.environ[OWNERS]!r}: {expected}.") from None
    return owners


def _require(condition: bool, name: str, rule: str) -> None:
    if not condition:
        raise dg.DagsterInvalidDefinitionError(f"Asset {name}: {rule}.")


def _stored(name: str, declared: Declaration) -> str:
    """The place of the output below the data root, with a placeholder for the partition."""
    keys, root = EXAMPLE_KEYS[declared.partitions], Path("/")
    try:
        path = declared.output(Storage(data_root=str(root), inbox_root=""), *keys.values()).relative_to(root)
    except (TypeError, ValueError) as error:
        raise dg.DagsterInvalidDefinitionError(
            f"Asset {name}: output must return a path below the data root ({error})."
        ) from error
    text = str(path)
    for placeholder, key in keys.items():
        text = text.replace(key, placeholder)
    return text


def _code_references(function: Callable[..., Any]) -> dg.CodeReferencesMetadataValue:
    """Where the asset's code is: below `DRIVE_ASSETS_CODE_URL`, else the local file."""
    path, line = Path(inspect.getfile(function)), function.__code__.co_firstlineno
    root = Path(__file__).parents[1]
    label = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    reference: Any = dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label)
    if base := os.environ.get(CODE_URL, "").strip().rstrip("/"):
        reference = dg.UrlCodeReference(url=f"{base}/{label}#L{line}", label=label)
    return dg.CodeReferencesMetadataValue(code_references=[reference])
