"""Dagster's helpers that copy what a step prints leave Ctrl-C to the step's process."""

import signal
from pathlib import Path

import psutil
import pytest

from drive_assets.compute_logs import QuietComputeLogs


def blocked(process: psutil.Process) -> int:
    """Mask of the signals that a process blocks."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)


def test_what_a_step_prints_is_kept_by_helpers_that_never_hear_of_ctrl_c(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs, key = QuietComputeLogs.from_config_value(None, {"home": str(tmp_path)}), ["run", "compute_logs", "step"]
    earlier = set(psutil.Process().children())
    with logs.capture_logs(key):
        print("a step's word")
        helpers = set(psutil.Process().children()) - earlier
        assert any("watch_orphans" in " ".join(helper.cmdline()) for helper in helpers)
        assert all(blocked(helper) & 1 << (signal.SIGINT - 1) for helper in helpers)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    assert logs.get_log_data(key).stdout == b"a step's word\n"
    assert not any(helper.is_running() for helper in helpers)
