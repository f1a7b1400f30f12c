"""Dagster's own daemon and web server, as they serve the real definitions, for benchmarks."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import requests
from dagster._core.scheduler.instigation import InstigatorType, TickStatus

from drive_assets_tests.browser.walk import free_port
from drive_assets_tests.running.daemon import daemon


@contextmanager
def web_server() -> Iterator[tuple[Callable[..., int], int]]:
    """Yields what sends a query with its variables and returns the size of the answer, and the server's process."""
    port = free_port()
    program = str(Path(sys.executable).with_name("dagster-webserver"))
    command = [program, "-m", "drive_assets.definitions", "-h", "127.0.0.1", "-p", str(port)]

    def ask(query: str, **variables: object) -> int:
        content = {"query": query, "variables": variables}
        answer = requests.post(f"http://127.0.0.1:{port}/graphql", json=content, timeout=600)
        assert "errors" not in answer.json(), answer.text[:500]
        return len(answer.content)

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while True:
                try:
                    ask("query { version }")
                    break
                except requests.ConnectionError:
                    time.sleep(0.5)
            yield ask, server.pid
        finally:
            server.terminate()


def daemon_ticks(
    instance: dg.DagsterInstance, names: Collection[str], count: int = 2, most_s: float = 150.0
) -> dict[str, list[float]]:
    """Seconds of the first `count` ticks of sensors that run by default; fewer if they are not done in `most_s`.

    `evaluate_automation_conditions`, which is for tests, reads all partition keys a hundred times a tick.
    """
    with daemon(Path(os.devnull)):
        ends = time.monotonic() + most_s
        while time.monotonic() < ends:
            ended = _ended(instance, names)
            if all(len(ended[name]) >= count for name in names):
                break
            time.sleep(1)
        return {name: ticks[:count] for name, ticks in _ended(instance, names).items()}


def _ended(instance: dg.DagsterInstance, names: Collection[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in names}
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.name in found:
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
            ended = [(tick.timestamp, tick.end_timestamp) for tick in ticks if tick.status != TickStatus.STARTED]
            found[state.name] = [end - start for start, end in reversed(ended) if end]
    return found
