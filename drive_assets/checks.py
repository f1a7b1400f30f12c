"""How checks of assets are written: `partition_check` for those of one partition, `check_result` for what all return.

Checks of assets without partitions are Dagster's own `dg.asset_check`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from drive_assets.resources.storage import Storage

Evaluate = Callable[[Storage, str], dg.AssetCheckResult]
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


@dataclass(frozen=True)
class PartitionCheck:
    """A check of one partition, evaluated in the run that materialises the partition."""

    name: str
    description: str
    blocking: bool
    evaluate: Evaluate

    def spec(self, asset: str, partitions: dg.PartitionsDefinition | None) -> dg.AssetCheckSpec:
        return dg.AssetCheckSpec(
            self.name, asset=asset, partitions_def=partitions, blocking=self.blocking, description=self.description
        )


def partition_check(description: str = "", blocking: bool = False) -> Callable[[Evaluate], PartitionCheck]:
    """Declare a function of the storage and a partition key as a check. Assets list it in `checks`.

    Args:
        description: shown in the UI; by default the function's docstring.
        blocking: whether an ERROR keeps downstream assets from being materialised.
    """

    def declare(evaluate: Evaluate) -> PartitionCheck:
        return PartitionCheck(evaluate.__name__, description or inspect.getdoc(evaluate) or "", blocking, evaluate)

    return declare


def check_result(
    problems: Sequence[str],
    advice: str = "",
    about: str = "",
    severity: dg.AssetCheckSeverity = WARN,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """The result of a check, which passes if there are no problems.

    Args:
        advice: what to do about the problems, in sentences.
        about: the file or partition that has the problems.
    """
    text = "; ".join(problems)
    if text and about:
        text = f"{about}: {text}"
    if text and advice:
        text = f"{text}. {advice}"
    return dg.AssetCheckResult(passed=not problems, severity=severity, description=text, metadata=metadata)
