"""Config of assets from a YAML file, for the command line and the refresh: read, and checked before any run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from drive_assets.running.dagster_private import PostProcessingError
from model.common.errors import DataError, did_you_mean
from model.common.progress import Log

AssetConfig = Mapping[str, Mapping[str, Any]]
"""Options by asset name."""
REFUSED_VALUE = re.compile(rf"{PostProcessingError.__name__}: (.*)")


def read_config(path: Path | None) -> dict[str, dict[str, Any]]:
    """Config by asset name from a YAML file; empty without one."""
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
    repository: dg.RepositoryDefinition, config: AssetConfig, selected: Sequence[dg.AssetKey], tell: Log
) -> None:
    """Check config before anything runs: a misspelt option must not cost hours of training with its default.

    Raises:
        DataError: config of an unknown asset, an unknown option, or an invalid value.
    """
    known, ignored = [key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()], list[str]()
    for name, options in config.items():
        if name not in known:
            raise DataError(f"Config for {name!r}: no such asset.{did_you_mean(name, known)}")
        if dg.AssetKey(name) not in selected:
            ignored.append(name)
            continue
        job = repository.get_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(name)})
        try:
            dg.validate_run_config(job, {"ops": {name: {"config": dict(options)}}})
        except dg.DagsterInvalidConfigError as error:
            reasons = "; ".join(_reason(name, problem.message) for problem in error.errors)
            raise DataError(f"Config for {name}: {reasons}. The launchpad lists its options and their types.") from None
    if ignored:
        tell(f"Config ignored for assets that are not selected: {', '.join(ignored)}.")


def _reason(name: str, message: str) -> str:
    """Dagster's message without its stack trace or its list of all options."""
    if refused := REFUSED_VALUE.search(message):
        return refused[1].rstrip(". ")
    place = f" at path root:ops:{name}:config"
    return message.split(". Expected: ")[0].replace(f"{place}:", " at ").replace(place, "").rstrip(". ")
