"""`python -m drive_assets_tests.campaign kills|inputs`: ends with 1 if there was a fault."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from drive_assets_tests.campaign import inputs, kills
from drive_assets_tests.campaign.steps import Workshop


def main() -> None:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument("kind", choices=["kills", "inputs"])
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no other one after this time")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="steps or kinds; default all")
    parser.add_argument("--folder", type=Path, required=True, help="holds prepared data roots and results")
    options = parser.parse_args()
    folder = options.folder.resolve()
    chosen = (options.number, options.seed, options.seconds, options.only, _tell)
    trials: Sequence[inputs.Trial | kills.Trial]
    trials = kills.campaign(Workshop(folder), *chosen) if options.kind == "kills" else inputs.campaign(folder, *chosen)
    bad = sum(bool(trial.faults) for trial in trials)
    _tell(f"{len(trials)} {options.kind}, {bad} with faults; the record is {folder / options.kind}.jsonl")
    sys.exit(1 if bad else 0)


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
