"""Telling a team of runs that failed: by apprise to Teams, Slack, e-mail and others, one message for a burst."""

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from drive_assets.recordings import arrivals
from drive_assets.running.instance import PROCESS_TAG
from drive_assets.status import failure_reason
from model.common.errors import DataError, PassingError

URLS = "DRIVE_ASSETS_NOTIFY"
"""Addresses of apprise (https://appriseit.com/services), with spaces between. They hold secrets: never shown."""
ADDRESS = "DRIVE_ASSETS_UI_URL"
"""Where people open the UI, for the link in a message."""
QUIET_S = 300.0
"""Between two messages: what fails meanwhile stands in the next."""
SHOWN = 10
MOST_CHARACTERS = 300


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING if os.environ.get(URLS) else dg.DefaultSensorStatus.STOPPED,
    description=f"Tells of runs that failed, at most every {QUIET_S / 60:.0f} minutes. Set {URLS} to the addresses of "
    "your team's channels, such as msteams://..., slack://... or mailto://... (apprise), and switch it on.",
)
def failure_notifications(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.SensorResult:
    """Send one message of all runs that failed since the last one."""
    now = arrivals.now()
    if context.cursor is None:
        return dg.SensorResult(skip_reason="Tells of what fails from now on.", cursor=json.dumps({"until": now}))
    cursor = json.loads(context.cursor)
    failed = _failed(context.instance, cursor["until"])
    if not failed:
        return dg.SkipReason("No run failed.")
    if now < cursor.get("told", 0.0) + QUIET_S:
        return dg.SkipReason(f"{len(failed)} failed: told with what else fails within {QUIET_S / 60:.0f} minutes.")
    title, body = message(context.instance, failed)
    send(title, body)
    until = max(record.update_timestamp.timestamp() for record in failed)
    return dg.SensorResult(skip_reason=f"Told: {title}", cursor=json.dumps({"until": until, "told": now}))


def _failed(instance: dg.DagsterInstance, since: float) -> Sequence[dg.RunRecord]:
    """Runs that failed after a time, the first first; not those of a command, whose user sees it."""
    after = datetime.fromtimestamp(since, UTC)
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after)
    records = [record for record in instance.get_run_records(filters) if PROCESS_TAG not in record.dagster_run.tags]
    return sorted(records, key=lambda record: record.update_timestamp)


def message(instance: dg.DagsterInstance, failed: Sequence[dg.RunRecord]) -> tuple[str, str]:
    """Title and text of what failed."""
    lines = []
    for record in failed[:SHOWN]:
        run = record.dagster_run
        assets = ", ".join(sorted(key.to_user_string() for key in run.asset_selection or ()))
        partition = run.tags.get("dagster/partition", "")
        reason = " ".join(failure_reason(instance, run.run_id).split())[:MOST_CHARACTERS]
        lines.append(f"{' '.join(filter(None, (assets or run.job_name, partition)))} (run {run.run_id[:8]}): {reason}")
    if len(failed) > SHOWN:
        lines.append(f"and {len(failed) - SHOWN} more")
    if url := os.environ.get(ADDRESS):
        lines.append(f"{url.rstrip('/')}/runs?q[0]=status%3AFAILURE")
    return f"drive-assets: {len(failed)} run{'s' * (len(failed) > 1)} failed", "\n".join(lines)


def send(title: str, body: str) -> None:
    """Send to all addresses.

    Raises:
        DataError: apprise is not installed, or no address is one; PassingError: a message was not taken.
    """
    try:
        import apprise
    except ImportError as error:
        raise DataError("Notifications need apprise: pip install 'drive-assets[notify]'.") from error
    channels, addresses = apprise.Apprise(), re.split(r"[\s]+", os.environ.get(URLS, "").strip())
    wrong = [number for number, address in enumerate(addresses, 1) if not channels.add(address)]
    if wrong:  # by number: an address holds secrets
        raise DataError(f"{URLS}: address {', '.join(map(str, wrong))} of {len(addresses)} is none that apprise knows.")
    if not channels.notify(title=title, body=body):
        raise PassingError(f"A message to {URLS} was not taken: {title}. The next tick tries again.")


defs = dg.Definitions(sensors=[failure_notifications])
