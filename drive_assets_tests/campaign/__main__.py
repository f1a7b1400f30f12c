"""`python -m drive_assets_tests.campaign kills|inputs|cluster`: exits with 1 if there was a fault."""

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from drive_assets_tests.campaign import cluster, inputs, kills

KINDS = {"kills": kills.trials, "inputs": inputs.trials, "cluster": cluster.trials}


def main() -> None:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further one after this time")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="steps, kinds or methods; default all")
    parser.add_argument("--folder", type=Path, required=True, help="for prepared data roots and results")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"{options.kind}.jsonl"
    hits, bad, seconds = 0, 0, 0.0
    with contextlib.closing(KINDS[options.kind](folder, options.seed, options.only)) as trials:
        while hits < options.number and seconds < options.seconds:
            trial = next(trials)
            hits, bad, seconds = hits + trial.hit, bad + bool(trial.faults), seconds + trial.seconds
            with record.open("a") as stream:
                stream.write(json.dumps(asdict(trial)) + "\n")
            missed = "" if trial.hit else ", after the end"
            outcome = f"{len(trial.faults)} FAULTS" if trial.faults else trial.outcome
            print(f"{trial.number:3} {trial.what}{missed}: {outcome} in {trial.seconds:.1f} s", flush=True)
            for fault in trial.faults[:10]:
                print(f"      {fault!r}", flush=True)
    print(f"{hits} of {options.number} {options.kind}, {bad} with faults; the record is {record}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
