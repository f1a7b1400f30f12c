"""Slurm's commands by ssh on a login node: a real sshd on loopback, while this process does not know Slurm."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drive_assets_tests.cluster.lab import Lab
from drive_assets_tests.cluster.slurm import LocalCluster, free_ports
from drive_assets_tests.waiting import until

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin") or ""
pytestmark = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh")), reason="no sshd (Debian: apt-get install openssh-server)"
)
SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/me.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
SetEnv SLURM_CONF={config}
"""
CLIENT = """\
Host login
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/me
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking accept-new
"""


@contextlib.contextmanager
def login_node(cluster: LocalCluster) -> Iterator[str]:
    """An sshd that knows the cluster; yields the PATH by which `ssh login` reaches it."""
    with tempfile.TemporaryDirectory(prefix="ssh-") as name:
        folder, (port,) = Path(name), free_ports(1)
        for key in ("host", "me"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        values = {"port": port, "folder": folder, "config": cluster.config}
        (folder / "server").write_text(SERVER.format(**values))
        (folder / "client").write_text(CLIENT.format(**values))
        (folder / "bin").mkdir()
        ssh = folder / "bin" / "ssh"  # users have this in ~/.ssh/config
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/client "$@"\n')
        ssh.chmod(0o755)
        Path("/run/sshd").mkdir(exist_ok=True)
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "server")], stderr=subprocess.DEVNULL)
        try:
            call = [ssh, "-o", "BatchMode=yes", "login", "true"]
            until(lambda: not subprocess.run(call, stderr=subprocess.DEVNULL).returncode, "sshd answers", 60)
            yield f"{ssh.parent}:{os.environ['PATH']}"
        finally:
            server.terminate()
            server.wait()


def test_jobs_run_by_a_login_node_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.root = lab.root / "a drive's root"  # which a shell would split
    lab.root.mkdir()
    monkeypatch.delenv("SLURM_CONF")
    with login_node(lab.cluster) as path:
        monkeypatch.setenv("PATH", path)
        assert lab.run("a", "b", {"login": "login"}).success
        lab.run("c", "c", {"login": "login", "size": {"partition": "nope"}})
        assert "Slurm refused the job: invalid partition specified: nope" in lab.log()
    assert [(lab.root / f"{key}.txt").read_text() for key in "ab"] == ["a", "b"]
    lab.run("d", "d", {"login": "login", "patience_s": 1.0})
    assert "login cannot be reached by ssh" in lab.log()
