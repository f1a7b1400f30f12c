"""Notifications of failed runs, sent by apprise to Teams, Slack, e-mail and others: one message per burst."""

import json
import os
from collections.abc import Sequence

import dagster as dg

from drive_assets.recordings import arrivals
from drive_assets.running.instance import PROCESS_TAG
from drive_assets.status import failure_reason
from model.common.errors import DataError, PassingError

URLS = "DRIVE_ASSETS_NOTIFY"
"""Apprise addresses (https://appriseit.com/services), separated by spaces. They hold secrets: never log them."""
ADDRESS = "DRIVE_ASSETS_UI_URL"
"""Where people open the UI, for the link in a message."""
QUIET_S = 300.0
"""Minimum time between two messages. Failures in between are part of the next one."""
MAX_FAILURES = 1000
SHOWN = 10
MAX_CHARACTERS = 300


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING if os.environ.get(URLS) else dg.DefaultSensorStatus.STOPPED,
    description=f"Sends a message about failed runs, at most every {QUIET_S / 60:.0f} minutes. Set {URLS} to the "
    "addresses of your channels, such as msteams://..., slack://... or mailto://... (apprise), and switch it on.",
)
def failure_notifications(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.SensorResult:
    """Send one message about all runs that failed since the last one.

    The cursor is a position in Dagster's event log, not a time: a wrong clock must not hide failures.
    """
    state, failure = json.loads(context.cursor or "{}"), dg.DagsterEventType.RUN_FAILURE
    if "position" not in state:
        newest = context.instance.fetch_run_status_changes(failure, limit=1)
        cursor = json.dumps({"position": newest.cursor})
        return dg.SensorResult(skip_reason="Reports runs that fail from now on.", cursor=cursor)
    changes = context.instance.fetch_run_status_changes(failure, MAX_FAILURES, state["position"], ascending=True)
    runs = [context.instance.get_run_by_id(record.run_id) for record in changes.records]
    failed = [run for run in runs if run and PROCESS_TAG not in run.tags]  # the user of a command sees its failure
    now, sent_at = arrivals.now(), state.get("sent_at", 0.0)
    if failed and 0 <= now - sent_at < QUIET_S:
        minutes = f"{QUIET_S / 60:.0f} minutes"
        return dg.SkipReason(f"{len(failed)} failed: the next message follows {minutes} after the last one.")
    done = "No run failed."
    if failed:
        title, body = message(context.instance, failed)
        send(title, body)
        done, sent_at = f"Sent: {title}", now
    return dg.SensorResult(skip_reason=done, cursor=json.dumps({"position": changes.cursor, "sent_at": sent_at}))


def message(instance: dg.DagsterInstance, failed: Sequence[dg.DagsterRun]) -> tuple[str, str]:
    """Title and text of a message."""
    lines = []
    for run in failed[:SHOWN]:
        assets = ", ".join(sorted(key.to_user_string() for key in run.asset_selection or ()))
        partition = run.tags.get("dagster/partition", "")
        reason = " ".join(failure_reason(instance, run.run_id).split())[:MAX_CHARACTERS]
        lines.append(f"{' '.join(filter(None, (assets or run.job_name, partition)))} (run {run.run_id[:8]}): {reason}")
    if len(failed) > SHOWN:
        lines.append(f"and {len(failed) - SHOWN} more")
    if url := os.environ.get(ADDRESS):
        lines.append(f"{url.rstrip('/')}/runs?q[0]=status%3AFAILURE")
    return f"drive-assets: {len(failed)} run{'s' * (len(failed) > 1)} failed", "\n".join(lines)


def send(title: str, body: str) -> None:
    """Send a message to all addresses.

    Raises:
        DataError: apprise is not installed, or an address is invalid; PassingError: a message was rejected.
    """
    try:
        import apprise
    except ImportError as error:
        raise DataError("Notifications need apprise: pip install 'drive-assets[notify]'.") from error
    channels, addresses = apprise.Apprise(), os.environ.get(URLS, "").split()
    for number, address in enumerate(addresses, 1):
        if not channels.add(address):  # by number: an address holds secrets
            raise DataError(f"{URLS}: address {number} of {len(addresses)} is not an apprise address.")
    if not channels.notify(title=title, body=body):
        raise PassingError(f"A message to {URLS} was rejected: {title}. The next tick sends it again.")


defs = dg.Definitions(sensors=[failure_notifications])
