"""A real PostgreSQL server of a test: an unprivileged user's, on a socket in a temporary folder, with a password."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PASSWORD = "s3cret@of tests"


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest version's; Debian has them outside of PATH."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return Path(found).resolve().parent if found else folders[-1].parent if folders else None


def reason_against() -> str:
    """Why no server can be started here; empty if one can."""
    if programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.getuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        return "there is no user postgres, and PostgreSQL does not run as root"
    return ""


@dataclass(frozen=True)
class Postgres:
    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg2://postgres:{quote(PASSWORD)}@/{database}?host={self.folder}"

    def control(self, *arguments: str) -> None:
        self.run("pg_ctl", "--pgdata", str(self.folder / "data"), "--wait", *arguments)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self.control("start", "--log", str(self.folder / "log"), "--options", options)

    def run(self, program: str, *arguments: str) -> None:
        found = programs()
        assert found is not None
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        ended = subprocess.run(
            [str(found / program), *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "LC_ALL": "C.UTF-8"},
            stdout=subprocess.DEVNULL,  # no pipe: the server would hold it open
            stderr=subprocess.STDOUT,
            **user,  # type: ignore[call-overload]
        )
        assert ended.returncode == 0, f"{program} {' '.join(arguments)}: exit status {ended.returncode}"


@contextlib.contextmanager
def postgres(*databases: str) -> Iterator[Postgres]:
    """A server with these databases for the block."""
    server = Postgres(Path(tempfile.mkdtemp(prefix="pg-")))
    try:
        (server.folder / "password").write_text(PASSWORD)
        if os.getuid() == 0:
            for path in (server.folder, server.folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        secret = ["--auth=scram-sha-256", f"--pwfile={server.folder / 'password'}"]
        server.run("initdb", f"--pgdata={server.folder / 'data'}", "--username=postgres", "--no-sync", *secret)
        server.start()
        try:
            for name in databases:
                server.run("createdb", f"--host={server.folder}", "--username=postgres", name)
            yield server
        finally:
            server.control("stop", "--mode=immediate")
    finally:
        shutil.rmtree(server.folder, ignore_errors=True)
