"""Signing in by secret, certificate and device code; renewal and failures."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.errors import AccessError, SharePointError
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.resources.clock import TestClock

Make = Callable[..., GraphClient]


def sign_ins(server: GraphServer) -> int:
    return sum(request.path.endswith("/oauth2/v2.0/token") for request in server.requests)


def test_a_secret_signs_in_once_for_many_requests(client: GraphClient, server: GraphServer) -> None:
    for _ in range(3):
        client.site_id(server.site_url)
    assert sign_ins(server) == 1


def test_a_certificate_signs_in(make_client: Make, server: GraphServer) -> None:
    client = make_client(client_certificate=str(server.certificate_pem), client_secret="")
    assert client.site_id(server.site_url)


def test_a_certificate_file_without_a_key_is_an_access_error(
    make_client: Make, server: GraphServer, tmp_path: Path
) -> None:
    pem = tmp_path / "no-key.pem"
    pem.write_bytes(server.ca_bundle.read_bytes())
    with pytest.raises(AccessError, match=r"private key and certificate in one PEM file"):
        make_client(client_certificate=str(pem)).site_id(server.site_url)


def test_a_wrong_secret_is_an_access_error_that_names_the_variables(make_client: Make, server: GraphServer) -> None:
    with pytest.raises(AccessError, match=r"invalid_client.*AADSTS7000215.*SHAREPOINT_CLIENT_ID"):
        make_client(client_secret="wr0ng").site_id(server.site_url)
    assert sign_ins(server) == 1, "a retry cannot help"


def test_an_unknown_tenant_is_an_access_error(make_client: Make, server: GraphServer) -> None:
    with pytest.raises(AccessError, match="SHAREPOINT_TENANT_ID"):
        make_client(tenant_id="00000000-0000-0000-0000-000000000000").site_id(server.site_url)


def test_a_failing_token_endpoint_is_retried_although_msal_caches_failures(
    client: GraphClient, server: GraphServer, clock: TestClock
) -> None:
    server.fail(Fault("error", count=2, match="oauth2/v2.0/token"))
    assert client.site_id(server.site_url)
    assert sign_ins(server) == 3
    assert len(clock.slept) == 2


def test_a_throttled_token_endpoint_pauses_the_client(
    client: GraphClient, server: GraphServer, clock: TestClock
) -> None:
    server.fail(Fault("throttle", match="oauth2/v2.0/token", retry_after=17))
    assert client.site_id(server.site_url)
    assert clock.slept == [17]


def test_a_token_is_renewed_before_it_expires(client: GraphClient, server: GraphServer, clock: TestClock) -> None:
    client.site_id(server.site_url)
    clock.sleep(3600 - 299)
    client.site_id(server.site_url)
    assert sign_ins(server) == 2


def test_a_refused_token_is_renewed_once(client: GraphClient, server: GraphServer, clock: TestClock) -> None:
    client.site_id(server.site_url)
    server.fail(Fault("expired_token"))
    assert client.site_id(server.site_url)
    assert sign_ins(server) == 2
    assert clock.slept == []


def test_a_token_refused_twice_is_an_access_error(client: GraphClient, server: GraphServer) -> None:
    server.fail(Fault("expired_token", count=None))
    with pytest.raises(AccessError, match="HTTP 401 InvalidAuthenticationToken"):
        client.site_id(server.site_url)
    assert (client.requests_sent, sign_ins(server)) == (2, 2)


def test_a_device_code_is_shown_to_the_user_and_its_sign_in_kept_for_the_daemon(
    make_client: Make, server: GraphServer, tmp_path: Path
) -> None:
    cache = tmp_path / "state" / "token.json"
    variables = {"auth": "device_code", "client_secret": "", "token_cache": str(cache)}
    with pytest.raises(AccessError, match="drive-assets sharepoint check"):
        make_client(**variables).site_id(server.site_url)
    messages: list[str] = []
    assert make_client(on_device_code=messages.append, **variables).site_id(server.site_url)
    assert len(messages) == 1 and "enter the code" in messages[0]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert list(cache.parent.iterdir()) == [cache]

    daemon = make_client(**variables)
    assert daemon.site_id(server.site_url)
    server.fail(Fault("expired_token"))
    assert daemon.site_id(server.site_url), "renewed by the refresh token, without a user"


def test_an_unreachable_login_is_tried_a_bounded_number_of_times(
    make_client: Make, server: GraphServer, clock: TestClock
) -> None:
    client = make_client(login_url="https://localhost:9")
    with pytest.raises(SharePointError, match="Signing in failed: the connection to localhost failed"):
        client.site_id(server.site_url)
    assert len(clock.slept) == 5
