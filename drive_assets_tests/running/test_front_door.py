"""The front door, around a small application: what passes, what is refused, and how."""

import json
from collections.abc import Iterator

import dagster as dg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from drive_assets.definitions import defs
from drive_assets.running.front_door import SETTINGS, cookie_name, guarded

ADDRESS = "http://127.0.0.1:3000"
TOKEN = "secret"


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("content")


async def socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("content")


def client(monkeypatch: pytest.MonkeyPatch, token: str | None = TOKEN) -> TestClient:
    monkeypatch.setenv(SETTINGS, json.dumps({"token": token, "hosts": ["127.0.0.1", "localhost"]}))
    pages = [Route("/{path:path}", page, methods=["GET", "POST"]), WebSocketRoute("/graphql", socket)]
    return TestClient(guarded(Starlette(routes=pages)), ADDRESS, follow_redirects=False)


@pytest.fixture
def anyone(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Without the token."""
    with client(monkeypatch) as given:
        yield given


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """With the token, in a cookie."""
    with client(monkeypatch) as given:
        given.cookies.set(cookie_name(TOKEN), TOKEN)
        yield given


def connects(client: TestClient, **headers: str) -> bool:
    try:
        with client.websocket_connect(f"{ADDRESS.replace('http', 'ws')}/graphql", headers=headers) as given:
            return given.receive_text() == "content"
    except WebSocketDenialResponse:
        return False


def test_the_address_with_the_token_leaves_a_cookie_and_the_page(anyone: TestClient) -> None:
    assert anyone.get("/runs").status_code == 403
    assert anyone.get("/runs", params={"token": "wrong"}).status_code == 403
    admitted = anyone.get("/runs", params={"token": TOKEN, "view": "list"})
    assert (admitted.status_code, admitted.headers["location"]) == (303, "/runs?view=list")
    assert "HttpOnly" in admitted.headers["set-cookie"] and "SameSite=lax" in admitted.headers["set-cookie"]
    assert anyone.get("/runs").text == "content" and connects(anyone)


def test_the_cookie_is_sent_over_https_only_behind_a_proxy_with_tls(anyone: TestClient) -> None:
    admitted = anyone.get("/", params={"token": TOKEN}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in admitted.headers["set-cookie"]
    assert "Secure" not in anyone.get("/", params={"token": TOKEN}).headers["set-cookie"]


def test_an_empty_token_admits_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch, token="") as anyone:
        for address in ("/", "/?token="):
            assert anyone.get(address, headers={"Authorization": "Bearer "}).status_code == 403


def test_the_token_leads_to_no_other_site(anyone: TestClient) -> None:
    assert anyone.get(f"{ADDRESS}//evil.example/", params={"token": TOKEN}).headers["location"] == "/evil.example/"


def test_scripts_send_the_token_in_a_header(anyone: TestClient) -> None:
    assert anyone.post("/graphql", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert anyone.post("/graphql", headers={"Authorization": "Bearer wrong"}).status_code == 403


def test_other_host_names_are_refused(user: TestClient) -> None:
    assert user.get("/", headers={"Host": "evil.example:3000"}).status_code == 400
    assert not connects(user, Host="evil.example:3000")
    assert user.get("/", headers={"Host": "localhost:3000"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:8000", "null"])
def test_pages_of_other_origins_are_refused(user: TestClient, origin: str) -> None:
    assert user.post("/graphql", headers={"Origin": origin}).status_code == 403
    assert not connects(user, Origin=origin)


def test_own_pages_pass(user: TestClient) -> None:
    assert user.post("/graphql", headers={"Origin": ADDRESS}).status_code == 200
    assert connects(user, Origin=ADDRESS)


def test_a_link_changes_nothing(user: TestClient) -> None:
    assert user.get("/graphql", params={"query": "mutation { x }"}).status_code == 405
    assert user.get("/graphql").status_code == 200


def test_without_a_token_everybody_is_admitted_but_no_other_site(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch, token=None) as anyone:
        assert anyone.get("/").status_code == 200
        assert anyone.post("/", headers={"Origin": "http://evil.example"}).status_code == 403
        assert anyone.get("/graphql", params={"query": "{ x }"}).status_code == 405


@pytest.mark.parametrize(
    ("resource", "option"),
    [("storage", {"data_root": "/tmp/elsewhere"}), ("compute", {"processes": 2}), ("mlflow", {"artifacts": "/tmp"})],
)
def test_a_launch_configures_no_resource(resource: str, option: dict[str, object]) -> None:
    job = defs.resolve_implicit_global_asset_job_def()
    with pytest.raises(dg.DagsterInvalidConfigError, match=f'unexpected config entry "{next(iter(option))}"'):
        dg.validate_run_config(job, {"resources": {resource: {"config": option}}})
