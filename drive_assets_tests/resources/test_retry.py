"""The retry loop: waits, bounds, and the pause that all workers share."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.errors import AccessError, SharePointError
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.resources.clock import TestClock
from model.common.downloads import MAX_FAILURES, Throttled

Make = Callable[..., GraphClient]


@pytest.mark.parametrize("kind", ["throttle", "unavailable"])
def test_429_and_503_wait_for_the_time_of_retry_after(
    client: GraphClient, server: GraphServer, clock: TestClock, kind: str
) -> None:
    server.fail(Fault(kind, count=2, retry_after=21))
    assert client.site_id(server.site_url)
    assert clock.slept == [21, 21]
    assert client.requests_sent == 3


def test_a_429_pauses_every_worker(make_client: Make, server: GraphServer, drive_id: str) -> None:
    client = GraphClient(make_client().settings)
    client.site_id(server.site_url)
    server.fail(Fault("throttle", retry_after=1))
    begin = time.monotonic()
    throttled = threading.Thread(target=client.site_id, args=(server.site_url,))
    throttled.start()
    while time.monotonic() - begin < 0.9 and server.requests[-1].status != 429:
        time.sleep(0.01)
    time.sleep(0.05)
    workers = [threading.Thread(target=client.item_by_path, args=(drive_id, "")) for _ in range(4)]
    sent = len(server.requests)
    for worker in workers:
        worker.start()
    time.sleep(0.4)
    assert len(server.requests) == sent, "no worker sends during the pause"
    for thread in (throttled, *workers):
        thread.join()
    assert time.monotonic() - begin >= 1
    assert len(server.requests) == sent + 5


def test_a_429_without_retry_after_pauses_too(client: GraphClient, server: GraphServer, clock: TestClock) -> None:
    server.fail(Fault("throttle", retry_after=None))
    assert client.site_id(server.site_url)
    assert clock.slept == [10]


def test_constant_throttling_is_an_error(make_client: Make, server: GraphServer) -> None:
    client = make_client(patience_s=20)
    server.fail(Fault("throttle", count=None, retry_after=0))
    with pytest.raises(Throttled):
        client.site_id(server.site_url)
    assert client.requests_sent == 21


def test_a_pause_beyond_the_client_s_patience_is_an_error_at_once(
    make_client: Make, server: GraphServer, clock: TestClock
) -> None:
    client = make_client(patience_s=20)
    server.fail(Fault("throttle", retry_after=120))
    with pytest.raises(Throttled, match="a pause of 120 s"):
        client.site_id(server.site_url)
    assert clock.slept == []
    with pytest.raises(Throttled):
        client.site_id(server.site_url)
    assert client.requests_sent == 1, "the pause applies to the next call too"


def test_rate_limit_headers_slow_the_client_down(
    client: GraphClient, server: GraphServer, clock: TestClock, drive_id: str, tmp_path: Path
) -> None:
    server.fail(Fault("rate_limit", count=None, remaining=10, retry_after=30))
    item = client.item_by_path(drive_id, "big.zip")
    client.download(drive_id, item, tmp_path / "big.zip")
    for _ in range(2):
        client.site_id(server.site_url)
    assert clock.slept == pytest.approx([3, 3, 3])


@pytest.mark.parametrize("status", [500, 502, 504, 509])
def test_transient_errors_back_off_exponentially_with_jitter(
    client: GraphClient, server: GraphServer, clock: TestClock, status: int
) -> None:
    server.fail(Fault("error", count=4, status=status))
    assert client.site_id(server.site_url)
    assert [low / 2 <= slept <= low for low, slept in zip((1, 2, 4, 8), clock.slept, strict=True)] == [True] * 4


def test_permanent_errors_end_after_a_bounded_number_of_tries(
    client: GraphClient, server: GraphServer, clock: TestClock
) -> None:
    server.fail(Fault("error", count=None))
    with pytest.raises(SharePointError, match=r"HTTP 500 generalException .*try again later") as caught:
        client.site_id(server.site_url)
    assert (caught.value.status, client.requests_sent) == (500, MAX_FAILURES)
    assert sum(clock.slept) < 60


def test_a_refusal_is_not_retried(client: GraphClient, server: GraphServer, clock: TestClock) -> None:
    server.fail(Fault("denied", match="/sites/"))
    with pytest.raises(AccessError, match=r"HTTP 403 accessDenied .*role read") as caught:
        client.site_id(server.site_url)
    assert (caught.value.status, client.requests_sent, clock.slept) == (403, 1, [])


@pytest.mark.parametrize("kind", ["cut", "truncate"])
def test_a_cut_answer_is_requested_again(client: GraphClient, server: GraphServer, drive_id: str, kind: str) -> None:
    server.fail(Fault(kind, at=20, match="/root/delta"))
    assert client.changes(drive_id)[1]


def test_an_unreachable_server_is_tried_a_bounded_number_of_times(
    client: GraphClient, server: GraphServer, clock: TestClock, make_client: Make
) -> None:
    unreachable = make_client(graph_url="https://localhost:9")
    with pytest.raises(SharePointError, match=r"the connection to localhost failed .*Check the network"):
        unreachable.site_id(server.site_url)
    assert len(clock.slept) == MAX_FAILURES - 1
