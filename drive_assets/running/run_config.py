"""Config of assets, as the command line and the refresh take it from a YAML file: read, and checked before work."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._config.errors import PostProcessingError

from model.common.errors import DataError
from model.common.progress import Tell

AssetConfig = Mapping[str, Mapping[str, Any]]
"""Options by asset name."""
REFUSAL = re.compile(rf"{PostProcessingError.__name__}: (.*)")


def read_config(path: Path | None) -> dict[str, dict[str, Any]]:
    """Config by asset name from a YAML file; empty without one.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML ({error}): expected config by asset name.") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise DataError(f"{path}: expected a mapping of asset names to config, such as `checkpoint: {{epochs: 5}}`.")
    return content


def check_config(
    repository: dg.RepositoryDefinition,
    config: AssetConfig,
    selected: Sequence[dg.AssetKey],
    tell: Tell,
) -> None:
    """Before anything runs: a misspelt option must not let hours of training run with the default.

    Raises:
        DataError: config of an unknown asset, an unknown option, or a value that is not what the option holds.
    """
    known = [key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()]
    for name, options in config.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise DataError(f"Config for {name!r}: no such asset." + (f" Is {near[0]} meant?" if near else ""))
        if dg.AssetKey(name) not in selected:
            tell(f"The config of {name} is not used: it is not selected.")
            continue
        job = repository.get_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(name)})
        try:
            dg.validate_run_config(job, {"ops": {name: {"config": dict(options)}}})
        except dg.DagsterInvalidConfigError as error:
            raise DataError(
                f"Config for {name} is wrong: {_reasons(name, error)}. Its options and their types stand in the "
                "launchpad."
            ) from None


def _reasons(name: str, error: dg.DagsterInvalidConfigError) -> str:
    return "; ".join(_reason(name, reason.message) for reason in error.errors)


def _reason(name: str, message: str) -> str:
    if refusal := REFUSAL.search(message):  # a value out of range; Dagster adds a stack
        return refusal[1].rstrip(". ")
    place = f" at path root:ops:{name}:config"
    # Dagster then lists all that it would take, with the types.
    return message.split(". Expected: ")[0].replace(f"{place}:", " at ").replace(place, "").rstrip(". ")
