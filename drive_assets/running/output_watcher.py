"""Dagster's script that ends the copying of a step's output to the terminal if the run dies, without a traceback at
Ctrl-C, which the terminal sends to every process of a command."""

import runpy
import signal
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    dagster = find_spec("dagster")  # does not import it, which would take a second
    assert dagster is not None and dagster.origin is not None
    script = Path(dagster.origin).with_name("_core") / "execution" / "scripts" / "watch_orphans.py"
    runpy.run_path(str(script), run_name="__main__")
