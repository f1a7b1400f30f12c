"""No log record, exception or repr holds a secret, token or pre-authenticated address, whatever goes wrong."""

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.items import Item
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.resources.clock import TestClock
from model.common.errors import DataError

FAULTS = [
    Fault("throttle", count=4),
    Fault("unavailable", count=4, retry_after=None),
    Fault("error", count=None),
    Fault("error", count=None, status=502),
    Fault("denied", count=None, match="/v1.0/"),
    Fault("denied", count=None, match="/download/"),
    Fault("error", count=None, match="/download/"),
    Fault("throttle", count=3, match="/download/"),
    Fault("expired_token", count=None),
    Fault("gone", count=None),
    Fault("empty_page", count=2),
    Fault("rate_limit", count=5),
    Fault("expired_url", count=None),
    Fault("expired_url", count=None, status=404),
    Fault("ignore_range", count=None),
    Fault("wrong_range", count=None),
    Fault("cut", count=None, at=1_000_000),
    Fault("cut", count=None, at=0),
    Fault("truncate", count=None, at=1_000_000),
    Fault("corrupt", count=None, at=1_000_000),
    Fault("changed_while_read", count=None, at=1_000_003),
    Fault("wrong_hash", count=None),
    Fault("missing_hash", count=None),
    Fault("malware", count=None),
    Fault("error", count=None, match="/oauth2/"),
    Fault("denied", count=None, match="/oauth2/"),
    Fault("throttle", count=2, match="/oauth2/"),
]
NO_ERROR = ("throttle", "unavailable", "empty_page", "rate_limit", "missing_hash", "truncate", "ignore_range")
"""Kinds that the client handles without an error."""


def shown(error: BaseException) -> Iterator[str]:
    """All texts of an exception: its message, repr and traceback, and those of its causes."""
    yield from ("".join(traceback.format_exception(error)), str(error), repr(error), repr(vars(error)))
    for before in (error.__cause__, error.__context__):
        if before is not None:
            yield from shown(before)


def work(
    client: GraphClient, server: GraphServer, target: Path, link: str, item: Item
) -> Iterator[Callable[[], object]]:
    """The client's calls, one at a time, so that each is tried even if others fail."""
    drive_id = link.split("/drives/")[1].split("/")[0]
    yield lambda: client.drives(client.site_id(server.site_url))
    yield lambda: client.changes(drive_id)
    yield lambda: list(client.children(drive_id, item.parent_id or ""))
    yield lambda: client.changes(drive_id, link)
    yield lambda: client.shared_item(server.share("big.zip"))
    yield lambda: client.item_by_path(drive_id, "big.zip")
    yield lambda: client.download(drive_id, item, target)
    yield lambda: client.download(drive_id, client.item(drive_id, item.id), target.with_name("now"))
    yield lambda: client.download_all(drive_id, [(item, target.with_name("other"))], workers=2)
    yield lambda: client.open_end(drive_id, item, 3_000_000).close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind} {fault.status or ''} {fault.match}".strip())
def test_no_fault_shows_a_secret(
    fault: Fault,
    make_client: Callable[..., GraphClient],
    server: GraphServer,
    clock: TestClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")
    caplog.set_level(logging.DEBUG, "msal")  # libraries set levels of their own, for the whole process
    texts: list[str] = []
    first = make_client()
    drive_id = first.drives(first.site_id(server.site_url))["Documents"]
    _, link, _ = first.changes(drive_id)
    item = first.item_by_path(drive_id, "big.zip")
    server.fail(fault)
    failed = 0
    for client in (first, make_client()):  # one is signed in, one is not
        for call in work(client, server, tmp_path / "here" / "big.zip", link, item):
            try:
                call()
            except DataError as error:
                failed += 1
                texts += shown(error)
        texts += [repr(client), repr(vars(client)), repr(client.settings)]
    formatter = logging.Formatter("%(name)s %(message)s %(args)s")
    texts += [formatter.format(record) + repr(vars(record)) for record in caplog.records]
    assert any("msal" in text for text in texts), "the log was captured"
    assert failed or fault.kind in NO_ERROR

    secrets = {server.client_secret}
    for request in server.requests:
        secrets |= set(re.findall(r"tempauth=[^&]*?([0-9a-f]{32,})", request.path))
        if "Authorization" in request.headers:
            secrets.add(request.headers["Authorization"].removeprefix("Bearer "))
    assert len(secrets) > 1
    everything = "\n".join(texts)
    assert [secret for secret in secrets if secret in everything] == []
    assert "tempauth" not in everything
    assert "/download/" not in everything
