"""`python -m drive_assets_tests.campaign kills|inputs|cluster`: exits with 1 if there was a fault."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from drive_assets_tests.campaign import cluster, inputs, kills


def main() -> None:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    kinds = {"kills": kills.campaign, "inputs": inputs.campaign, "cluster": cluster.campaign}
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further one after this time")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="steps, kinds or methods; default all")
    parser.add_argument("--folder", type=Path, required=True, help="for prepared data roots and results")
    options = parser.parse_args()
    folder = options.folder.resolve()
    trials: Sequence[kills.Trial | inputs.Trial | cluster.Trial]
    trials = kinds[options.kind](folder, options.number, options.seed, options.seconds, options.only, _tell)
    bad = sum(bool(trial.faults) for trial in trials)
    _tell(f"{len(trials)} {options.kind}, {bad} with faults; the record is {folder / options.kind}.jsonl")
    sys.exit(1 if bad else 0)


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
