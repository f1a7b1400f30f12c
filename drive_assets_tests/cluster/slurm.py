"""A real Slurm cluster of two nodes on this machine: munged, slurmctld and two slurmd, as children of this process.

Needs Debian's packages slurm-wlm and munge, and root. Up in a few seconds. Node n2 does not see the folder `hidden`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from drive_assets_tests.waiting import until

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "unshare")
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={dir}/ctld
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/ctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/ctld.log
SlurmdLogFile={dir}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=3
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
SwitchType=switch/none
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=8 RealMemory=8000 Gres=gpu:1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=8 RealMemory=8000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=n1,n2 PriorityTier=2 MaxTime=INFINITE State=UP
PartitionName=short Nodes=n1 MaxTime=1 State=UP
PartitionName=blind Nodes=n2 MaxTime=INFINITE State=UP
"""


def reason_against() -> str:
    """Why no cluster can be started here; empty if it can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in COMMANDS if shutil.which(name, path=path) is None]:
        return f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)"
    if os.getuid():
        return "a Slurm cluster for tests needs root"
    return ""


class LocalCluster:
    """The daemons and their folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hidden = folder, folder / "hidden"
        self.config = folder / "slurm.conf"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "SLURM_CONF": str(self.config), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def start(self) -> None:
        for name in ("ctld", "munge", "spool-n1", "spool-n2", "hidden"):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        port, port1, port2 = free_ports(3)
        values = {"host": socket.gethostname(), "dir": self.folder, "port": port, "port1": port1, "port2": port2}
        self.config.write_text(CONFIG.format(**values))
        (self.folder / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/null\n")
        options = [f"--{name}={key.parent}/{name}" for name in ("socket", "log-file", "pid-file", "seed-file")]
        self.run("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        until((key.parent / "socket").exists, "munged listens")
        self.start_controller()
        self.run("n1", "slurmd", "-D", "-N", "n1")
        blind = f"mount -t tmpfs none {self.hidden} && exec slurmd -D -N n2"
        self.run("n2", "unshare", "--mount", "sh", "-c", blind)
        nodes = ("sinfo", "-h", "-N", "-p", "main", "-o", "%t")
        until(lambda: self.call(*nodes).split() == ["idle"] * 2, f"both nodes are idle; see {self.folder}/*.out")

    def start_controller(self) -> None:
        self.run("slurmctld", "slurmctld", "-D")

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def lose_node(self, reason: str) -> None:
        """Kill slurmd of node n1 and mark the node as down, as after SlurmdTimeout."""
        self.processes["n1"].kill()
        self.stop("n1")
        self.call("scontrol", "update", "nodename=n1", "state=down", f"reason={reason}")

    def stop_all(self) -> None:
        self.call("scancel", "--full", "--user=root", "--signal=KILL")
        self.call("scancel", "--user=root")
        for name in reversed(list(self.processes)):
            self.stop(name)
        for process in psutil.process_iter():  # jobs that outlived their slurmd
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == str(self.config) and process.pid != os.getpid():
                    process.kill()

    def call(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def run(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            # It may leave a core file in its working directory.
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder
            )


@contextlib.contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """A cluster for the block. Its folder has a short name, as the path of a socket must be short."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    cluster = LocalCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
