"""Times the SharePoint client against curl and against itself with one worker, on the local Graph server, in one run.

    python -m benchmarks.sharepoint [--size-mib 1024] [--files 5000]

The server runs in another process and uses TLS on loopback. The ratios do not depend on the machine's speed. See
benchmarks/sharepoint_sensor.py for the sensor.
"""

import argparse
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.errors import Operation
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.sharepoint.quickxorhash import CHUNK, QuickXorHash
from drive_assets.resources.sharepoint.settings import SharePointSettings
from model.common.files import fsync

ROUNDS = 6
FRAME_BYTES = 20_000
LATENCY_S = 0.02


def serve(pipe: Connection, folder: Path, latency_s: float) -> None:
    from drive_assets_tests.graph_server import GraphServer

    with GraphServer(folder, latency_s=latency_s) as server:
        pipe.send((server.environment(), server.site_url))
        pipe.recv()


@contextmanager
def library(folder: Path, latency_s: float = 0.0) -> Iterator[tuple[GraphClient, str, dict[str, str]]]:
    """A client of a server of `folder`, the library's drive id, and the environment for the server."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, folder, latency_s), daemon=True)
    process.start()
    there.close()  # otherwise recv would wait for a server that failed
    environment, site_url = here.recv()
    settings = SharePointSettings.from_environment(environment)
    assert settings is not None
    client = GraphClient(settings)
    try:
        yield client, client.drives(client.site_id(site_url))["Documents"], environment
    finally:
        here.send(None)
        process.join()


def timed(action: Any, *arguments: Any) -> float:
    begin = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - begin


def curl(client: GraphClient, drive_id: str, item: Item, ca_bundle: str, target: Path) -> None:
    """Download with curl. The address is passed by a pipe, since the list of processes is public."""
    with client.content(drive_id, item.id, "", Operation("Downloading")) as response:
        address = response.url
    command = ["curl", "--silent", "--fail", "--cacert", ca_bundle, "--output", str(target), "--config", "-"]
    subprocess.run(command, input=f'url = "{address}"', text=True, check=True)


def hashing() -> None:
    data = memoryview(os.urandom(256 << 20))  # more than any cache holds
    running = QuickXorHash()
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    seconds = timed(lambda: [running.update(chunk) for chunk in chunks])
    print(f"quickXorHash, {CHUNK >> 10} KiB at a time: {len(data) / seconds / 1e6:,.0f} MB/s on one core (target: 500)")


def one_zip(folder: Path, size_mib: int) -> None:
    served = folder / "one"
    served.mkdir()
    block = random.randbytes(1 << 20)
    with (served / "drive.zip").open("wb") as file:
        for number in range(size_mib):
            file.write(number.to_bytes(8, "little") + block[8:])
    with library(served) as (client, drive_id, environment):
        item = client.item_by_path(drive_id, "drive.zip")
        target = folder / "drive.zip"
        times: dict[str, list[float]] = {"curl": [], "curl and fsync": [], "client": []}

        def curl_and_fsync() -> None:
            curl(client, drive_id, item, environment["SHAREPOINT_CA_BUNDLE"], target)
            fsync(target)

        turns: list[tuple[str, Any, tuple[Any, ...]]] = [
            ("curl", curl, (client, drive_id, item, environment["SHAREPOINT_CA_BUNDLE"], target)),
            ("curl and fsync", curl_and_fsync, ()),
            ("client", client.download, (drive_id, item, target)),
        ]
        for number in range(ROUNDS):  # in turn, so that all meet the same machine and disk
            for name, action, arguments in turns[number % 3 :] + turns[: number % 3]:
                target.unlink(missing_ok=True)
                os.sync()
                times[name].append(timed(action, *arguments))
        ours = median(times.pop("client"))
        print(f"one zip of {size_mib} MiB: the client, with hash and fsync, {item.size / ours / 1e6:,.0f} MB/s")
        for name, theirs in times.items():
            share = 100 * median(theirs) / ours
            print(f"  {name} {item.size / median(theirs) / 1e6:,.0f} MB/s: the client has {share:.0f} % (target: 80 %)")
    target.unlink()


def small_files(folder: Path, files: int) -> None:
    served = folder / "many" / "2026-03-01_10-00-00"
    served.mkdir(parents=True)
    for number in range(files):
        (served / f"{number:05}.jpg").write_bytes(random.randbytes(FRAME_BYTES))
    with library(served.parent, LATENCY_S) as (client, drive_id, _):
        where = client.item_by_path(drive_id, served.name)
        items = list(client.children(drive_id, where.id))
        few = items[: max(1, files // 10)]  # one worker would take minutes, and only its rate is of interest
        alone = timed(client.download_all, drive_id, [(item, folder / "alone" / item.name) for item in few], 1)
        together = timed(client.download_all, drive_id, [(item, folder / "together" / item.name) for item in items], 8)
        one, eight = len(few) / alone, len(items) / together
        print(
            f"{files:,} files of {FRAME_BYTES:,} bytes, {1000 * LATENCY_S:.0f} ms added to each answer: 1 worker "
            f"{one:.1f} files/s, 8 workers {eight:.1f} files/s: {eight / one:.1f} times (target: 5)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=5000)
    asked = parser.parse_args()
    hashing()
    with tempfile.TemporaryDirectory() as name:
        one_zip(Path(name), asked.size_mib)
        small_files(Path(name), asked.files)


if __name__ == "__main__":
    main()
