"""Dagster's copies of what steps print, made by processes that leave Ctrl-C to the run. Named in dagster.yaml."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from dagster import StringSource
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClassData

from model.common.processes import leaving_ctrl_c_to_this_one


class QuietComputeLogs(LocalComputeLogManager):
    """Dagster starts two processes for each stream that is copied; they end with the step, or with its process."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Where Dagster's own would be by default, in DAGSTER_HOME."""
        return cls(str(Path(config_value["home"]) / "storage"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        with ExitStack() as stack:
            with leaving_ctrl_c_to_this_one():
                captured = stack.enter_context(super().capture_logs(log_key))
            yield captured
