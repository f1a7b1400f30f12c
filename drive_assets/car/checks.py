"""Checks of bundles: are they whole, and of today's checkpoint?"""

import json

import dagster as dg

from drive_assets.checks import ERROR, check_result, partition_check
from drive_assets.resources.storage import Storage
from model.bundle.config import DESCRIPTION, LIMITS, MEASURED
from model.common.files import sha256
from model.recording.schema import used_schema
from model.training.published import BEST


@partition_check(
    "Its files are those that were compared with torch on the golden drive, within the limits.", blocking=True
)
def same_as_torch(storage: Storage, name: str) -> dg.AssetCheckResult:
    folder = storage.bundle(name)
    files, measured = (
        json.loads((folder / DESCRIPTION).read_bytes())["files"],
        json.loads((folder / MEASURED).read_bytes()),
    )
    changed = [
        each for each, digest in files.items() if not (folder / each).is_file() or sha256(folder / each) != digest
    ]
    problems = [f"{len(changed)} files changed, as {changed[0]}"] if changed else []
    problems += [
        f"{what} differs by {measured[what]:.1e} from torch, more than {limit:g}"
        for what, limit in LIMITS.items()
        if not measured[what] <= limit
    ]
    return check_result(problems, "Materialise car_bundle again.", about=name, severity=ERROR)


@partition_check()
def of_the_checkpoint(storage: Storage, name: str) -> dg.AssetCheckResult:
    """It holds the network that is published now, and reads telemetry by today's schema."""
    content = json.loads((storage.bundle(name) / DESCRIPTION).read_bytes())
    problems = []
    if content["checkpoint"] != sha256(storage.checkpoint(name) / BEST):
        problems.append("it holds an earlier checkpoint")
    if content["schema"] != used_schema(content["inputs"])["fingerprint"]:
        problems.append("it reads channels by an earlier schema")
    return check_result(problems, "Evaluate the checkpoint, then materialise car_bundle again.", about=name)
