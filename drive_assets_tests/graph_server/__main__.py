"""python -m drive_assets_tests.graph_server FOLDER [--port N] [--env-file FILE]: serve a folder until Ctrl-C."""

import argparse
import shlex
import signal
import threading
from pathlib import Path

from drive_assets_tests.graph_server.server import GraphServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="graph_server", description="A local Microsoft Graph over a folder.")
    parser.add_argument("folder", type=Path, help="content of the document library")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--env-file", type=Path, help="write the SHAREPOINT_* variables there, for a shell to read")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with GraphServer(options.folder, port=options.port) as server:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in server.environment().items()]
        if options.env_file is not None:
            options.env_file.touch(mode=0o600)
            options.env_file.write_text("\n".join(lines) + "\n")
        print(f"{options.folder} as the library of {server.site_url}, on {server.graph_url}", flush=True)
        print(f"Variables: {options.env_file}" if options.env_file else "\n".join(lines), flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
