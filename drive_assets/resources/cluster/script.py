"""What Slurm is asked to run: the options of sbatch and the batch script."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from drive_assets.resources.cluster.commands import UNSEEN_STATUS, SlurmCommands
from drive_assets.resources.cluster.settings import SlurmSettings
from drive_assets.tasks import RESUME_STATUS

FIXED = ("--nodes=1", "--ntasks=1", "--export=PATH,HOME,USER,LANG", "--chdir=/", "--output=/dev/null", "--requeue")


def submit(settings: SlurmSettings, task: str, name: str, folders: Sequence[Path]) -> list[str]:
    """Submit one job per folder, as a job array, and return the jobs' ids. Errors as SlurmCommands.submit."""
    size = settings.size(task)
    resources = {
        "partition": size.partition or settings.partition,
        "account": size.account or settings.account,
        "qos": size.qos or settings.qos,
        "time": size.time,
        "cpus-per-task": str(size.cpus),
        "mem": size.memory,
        "gres": size.gres,
    }
    requested = [*(f"--{option}={value}" for option, value in resources.items() if value), *size.extra]
    limit = f"%{size.at_once}" if size.at_once else ""
    array = [f"--array=0-{len(folders) - 1}{limit}"] if len(folders) > 1 else []
    # B: only the script gets the signal, and passes it on once the worker runs.
    early = [f"--signal=B:USR1@{settings.end_early_s}"] if settings.end_early_s else []
    options = [*FIXED, *requested, *array, *early, f"--job-name={settings.name_prefix}{name}"]
    job = SlurmCommands(settings.login).submit(options, _script(settings, name, folders), requested)
    return [f"{job}_{index}" for index in range(len(folders))] if array else [job]


def _script(settings: SlurmSettings, name: str, folders: Sequence[Path]) -> str:
    """Runs the worker in its job's folder, forwards Slurm's signals, and requeues the job if the worker ended early.

    It survives SIGTERM, such as that of a pre-emption, until the worker has saved: Slurm may kill everything once the
    script has ended.
    """
    worker = shlex.join([*settings.prefix, settings.python, "-P", "-u", "-m", settings.worker_module])
    lines = [
        "#!/bin/bash",
        f"folders=({shlex.join(map(str, folders))})",
        f'cd "${{folders[${{SLURM_ARRAY_TASK_ID:-0}}]}}" || exit {UNSEEN_STATUS}',
        f'exec >>"{name}.log" 2>&1 || exit {UNSEEN_STATUS}',
        # A line that a killed attempt left unfinished must not join the next one.
        f'echo >>"{name}.messages.jsonl"',
        # Without it the result was taken: a controller that lost its state runs the job again.
        f'. "./{name}.env" || exit 0',
        *settings.setup,
        f"{worker} & worker=$!",
        "early=0; trap 'signalled=1; early=1; kill -USR1 $worker' USR1",
        "trap 'signalled=1; kill -TERM $worker' TERM",
        "signalled=1; while [ $signalled = 1 ]; do signalled=0; wait $worker; status=$?; done",
        # 138: the signal came before the worker had installed its handler.
        f"if [ $status = {RESUME_STATUS} ] || {{ [ $early = 1 ] && [ $status = 138 ]; }}; then",
        f'  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {settings.requeues} ] && scontrol requeue "$SLURM_JOB_ID"; then',
        "    sleep 300  # Slurm ends this script",
        "  fi",
        "fi",
        "exit $status",
    ]
    return "\n".join(lines) + "\n"
