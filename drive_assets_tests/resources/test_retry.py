"""The one retry loop: waits, bounds, and the pause that all workers share (contract 18, 16)."""

import threading
import time
from collections.abc import Callable

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.items import AccessError, SharePointError, Throttled
from drive_assets.resources.sharepoint.transport import MOST_FAILURES, MOST_THROTTLES
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.resources.clock import TestClock

Make = Callable[..., GraphClient]


@pytest.mark.parametrize("kind", ["throttle", "unavailable"])
def test_429_and_503_wait_as_long_as_they_say_and_failed_calls_count(
    client: GraphClient, server: GraphServer, clock: TestClock, kind: str
) -> None:
    server.fail(Fault(kind, count=2, retry_after=21))
    assert client.site_id(server.site_url)
    assert clock.slept == [21, 21]
    assert client.requests_made == 3


def test_a_429_pauses_every_worker(make_client: Make, server: GraphServer, drive_id: str) -> None:
    class RealClock:
        def now(self) -> float:
            return time.monotonic()

        def sleep(self, seconds: float) -> None:
            time.sleep(seconds)

    client = GraphClient(make_client()._transport.settings, RealClock())
    client.site_id(server.site_url)
    server.fail(Fault("throttle", retry_after=1))
    begin = time.monotonic()
    throttled = threading.Thread(target=client.site_id, args=(server.site_url,))
    throttled.start()
    while time.monotonic() - begin < 0.9 and server.requests[-1].status != 429:
        time.sleep(0.01)
    time.sleep(0.05)
    others = [threading.Thread(target=client.item_by_path, args=(drive_id, "")) for _ in range(4)]
    asked = len(server.requests)
    for other in others:
        other.start()
    time.sleep(0.4)
    assert len(server.requests) == asked, "nobody asks during the pause"
    for thread in (throttled, *others):
        thread.join()
    assert time.monotonic() - begin >= 1
    assert len(server.requests) == asked + 5


def test_a_429_without_retry_after_pauses_all_the_same(
    client: GraphClient, server: GraphServer, clock: TestClock
) -> None:
    server.fail(Fault("throttle", retry_after=None))
    assert client.site_id(server.site_url)
    assert clock.slept == [10]


def test_a_service_that_always_throttles_ends_in_an_error(
    client: GraphClient, server: GraphServer, clock: TestClock
) -> None:
    server.fail(Fault("throttle", count=None, retry_after=1))
    with pytest.raises(SharePointError, match="HTTP 429 activityLimitReached"):
        client.site_id(server.site_url)
    assert client.requests_made == MOST_THROTTLES


def test_a_pause_beyond_the_client_s_patience_is_raised_and_not_waited_for(
    make_client: Make, server: GraphServer, clock: TestClock
) -> None:
    client = make_client(patience_s=20)
    server.fail(Fault("throttle", retry_after=120))
    with pytest.raises(Throttled, match="120 s more") as caught:
        client.site_id(server.site_url)
    assert caught.value.wait_s == pytest.approx(120)
    assert clock.slept == []
    with pytest.raises(Throttled):
        client.site_id(server.site_url)
    assert client.requests_made == 1, "the pause holds for the next call too"


def test_rate_limit_headers_slow_the_client_down_before_it_is_stopped(
    client: GraphClient, server: GraphServer, clock: TestClock
) -> None:
    server.fail(Fault("rate_limit", remaining=10, retry_after=30))
    for _ in range(4):
        client.site_id(server.site_url)
    assert clock.slept == pytest.approx([3, 3, 3])


@pytest.mark.parametrize("status", [500, 502, 504, 509])
def test_passing_errors_back_off_exponentially_with_jitter(
    client: GraphClient, server: GraphServer, clock: TestClock, status: int
) -> None:
    server.fail(Fault("bad_gateway", count=4, status=status))
    assert client.site_id(server.site_url)
    assert [low / 2 <= slept <= low for low, slept in zip((1, 2, 4, 8), clock.slept, strict=True)] == [True] * 4


def test_jitter_makes_two_clients_wait_differently(make_client: Make, server: GraphServer, clock: TestClock) -> None:
    for _ in range(2):
        server.fail(Fault("error"))
        make_client().site_id(server.site_url)
    assert clock.slept[0] != clock.slept[1]


def test_a_500_of_no_coherent_view_passes_by_itself(client: GraphClient, server: GraphServer, drive_id: str) -> None:
    server.fail(Fault("coherent_view", count=2, match="delta"))
    assert client.delta_page(drive_id).items


def test_errors_that_do_not_pass_end_after_a_bounded_number_of_tries(
    client: GraphClient, server: GraphServer, clock: TestClock
) -> None:
    server.fail(Fault("error", count=None))
    with pytest.raises(SharePointError, match=r"HTTP 500 generalException .*try again later") as caught:
        client.site_id(server.site_url)
    assert (caught.value.status, client.requests_made) == (500, MOST_FAILURES)
    assert sum(clock.slept) < 60


def test_a_refusal_is_not_tried_again(client: GraphClient, server: GraphServer, clock: TestClock) -> None:
    server.fail(Fault("denied", match="/sites/"))
    with pytest.raises(AccessError, match=r"HTTP 403 accessDenied .*role read") as caught:
        client.site_id(server.site_url)
    assert (caught.value.status, client.requests_made, clock.slept) == (403, 1, [])


@pytest.mark.parametrize("kind", ["cut", "truncate"])
def test_a_cut_answer_of_graph_is_asked_for_again(
    client: GraphClient, server: GraphServer, drive_id: str, kind: str
) -> None:
    server.fail(Fault(kind, at=20, match="/root/delta"))
    assert client.delta_page(drive_id).items


def test_a_server_that_is_not_there_is_tried_a_bounded_number_of_times(
    client: GraphClient, server: GraphServer, clock: TestClock, make_client: Make
) -> None:
    away = make_client(graph_url="https://localhost:9")
    with pytest.raises(SharePointError, match=r"the connection to localhost failed .*Check the network"):
        away.site_id(server.site_url)
    assert len(clock.slept) == MOST_FAILURES - 1
