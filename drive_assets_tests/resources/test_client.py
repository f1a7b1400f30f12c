"""Resolving, listing and changes against the local Graph server."""

import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.client import GraphClient
from drive_assets.resources.sharepoint.errors import AccessError, NotFound, ResyncRequired, SharePointError
from drive_assets.resources.sharepoint.items import Item
from drive_assets_tests.graph_server import Fault, GraphServer
from drive_assets_tests.resources.conftest import DRIVE


def round_of(client: GraphClient, drive_id: str, link: str | None = None) -> tuple[dict[str, Item], str]:
    """The last state of each item that changed since a link, and the link to later changes."""
    items, is_last = dict[str, Item](), False
    while not is_last:
        page, link, is_last = client.changes(drive_id, link)
        items |= {item.id: item for item in page}
    return items, str(link)


def test_creating_a_client_sends_no_request(client: GraphClient, server: GraphServer) -> None:
    assert client.requests_sent == 0
    assert server.requests == []


def test_a_site_has_an_id_and_its_libraries_are_listed(client: GraphClient, server: GraphServer) -> None:
    site = client.site_id(server.site_url)
    assert re.fullmatch(r"[^,]+,[0-9a-f-]{36},[0-9a-f-]{36}", site)
    drives = client.drives(site)
    assert drives["Documents"].startswith("b!")
    assert client.requests_sent == 2


def test_an_unknown_site_is_an_error_that_names_the_variable(client: GraphClient, server: GraphServer) -> None:
    with pytest.raises(NotFound, match=r"sites/none.*HTTP 404 itemNotFound.*SHAREPOINT_SITE") as caught:
        client.site_id(server.site_url.replace("/drives", "/none"))
    assert (caught.value.status, caught.value.code) == (404, "itemNotFound")


def test_items_are_found_by_path_and_by_id(client: GraphClient, drive_id: str) -> None:
    item = client.item_by_path(drive_id, f"Drives/{DRIVE}/telemetry.csv")
    assert (item.name, item.size, item.is_folder) == ("telemetry.csv", 1300, False)
    assert client.item(drive_id, item.id) == item
    root = client.item_by_path(drive_id, "")
    assert root.is_folder and root.parent_id is None
    with pytest.raises(NotFound, match=r"'Drives/none'.*SHAREPOINT_FOLDER"):
        client.item_by_path(drive_id, "Drives/none")


def test_every_segment_of_a_path_is_encoded(client: GraphClient, server: GraphServer, drive_id: str) -> None:
    item = client.item_by_path(drive_id, "100% #1 ä+b/%41&c.txt")
    assert (item.name, item.size) == ("%41&c.txt", 3)
    assert drive_id in server.requests[-1].path, "b! stays"


def test_a_shared_link_leads_to_its_item_unless_it_is_anonymous(
    client: GraphClient, server: GraphServer, drive_id: str
) -> None:
    drive, item = client.shared_item(server.share(f"Drives/{DRIVE}"))
    assert (drive, item.name, item.is_folder) == (drive_id, DRIVE, True)
    assert server.requests[-1].path.startswith("/v1.0/shares/u!")
    assert "=" not in server.requests[-1].path
    with pytest.raises(AccessError, match="SHAREPOINT_SITE"):
        client.shared_item(server.share("big.zip", anonymous=True))


def test_children_are_requested_in_pages_of_a_thousand_of_which_one_may_be_empty(
    client: GraphClient, server: GraphServer, drive_id: str
) -> None:
    folder = client.item_by_path(drive_id, f"Drives/{DRIVE}")
    for requests, faults in ((1, []), (2, [Fault("empty_page")])):
        for fault in faults:
            server.fail(fault)
        before = client.requests_sent
        assert {child.name for child in client.children(drive_id, folder.id)} == {"telemetry.csv", "1.jpg", "2.jpg"}
        assert client.requests_sent == before + requests
    assert "$top=1000" in urllib.parse.unquote(server.requests[-1].path)


def test_pages_of_changes_list_what_changed_since_the_first(client: GraphClient, library: Path, drive_id: str) -> None:
    items = {child.id: child for child in client.children(drive_id, client.item_by_path(drive_id, "").id)}
    at_start, start, is_last = client.changes(drive_id)
    assert (at_start, is_last) == ([], True)
    (library / "big.zip").unlink()
    (library / "new.txt").write_bytes(b"new")
    changed, link = round_of(client, drive_id, start)
    states = {item.name or items[item.id].name: item.deleted for item in changed.values() if item.parent_id}
    assert (states["big.zip"], states["new.txt"]) == (True, False)
    before = client.requests_sent
    assert round_of(client, drive_id, link)[0] == {}
    assert client.requests_sent == before + 1


def test_children_whose_next_link_repeats_are_an_error(
    make_client: Callable[..., GraphClient], server: GraphServer, drive_id: str, library: Path
) -> None:
    client = make_client()
    for number in range(1001):
        (library / f"{number}.txt").touch()
    server.fail(Fault("repeated_next", count=None))
    with pytest.raises(SharePointError, match="a next link repeats"):
        list(client.children(drive_id, client.item_by_path(drive_id, "").id))


def test_410_requires_a_resync(client: GraphClient, server: GraphServer, drive_id: str) -> None:
    server.fail(Fault("gone", code="resyncRequired"))
    with pytest.raises(ResyncRequired) as caught:
        client.changes(drive_id, client.changes(drive_id)[1])
    assert (caught.value.status, caught.value.code) == (410, "resyncRequired")


def test_a_link_to_another_host_receives_no_token(client: GraphClient, server: GraphServer, drive_id: str) -> None:
    sent = len(server.requests)
    with pytest.raises(SharePointError, match="another host"):
        client.changes(drive_id, server.graph_url.replace("localhost", "127.0.0.1") + "/v1.0/drives/x/root/delta")
    assert len(server.requests) == sent


def test_requests_name_the_company_and_the_app(make_client: Callable[..., GraphClient], server: GraphServer) -> None:
    make_client(company="Contoso").site_id(server.site_url)
    assert re.fullmatch(r"NONISV\|Contoso\|drive-assets/[0-9.]+", server.requests[-1].headers["User-Agent"])


def test_an_untrusted_certificate_is_an_error_that_names_the_variable(
    make_client: Callable[..., GraphClient], server: GraphServer, tmp_path: Path
) -> None:
    import trustme

    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(SharePointError, match="SHAREPOINT_CA_BUNDLE"):
        make_client(ca_bundle=str(other)).site_id(server.site_url)


@pytest.mark.parametrize("is_signed_in", [True, False])
def test_a_missing_ca_bundle_is_an_error_that_names_it(
    make_client: Callable[..., GraphClient], server: GraphServer, tmp_path: Path, is_signed_in: bool
) -> None:
    bundle = tmp_path / "authorities.pem"
    bundle.write_bytes(server.ca_bundle.read_bytes())
    client = make_client(ca_bundle=str(bundle))
    if is_signed_in:
        client.sign_in()
    bundle.unlink()
    with pytest.raises(SharePointError, match=r"failed: .*authorities\.pem.*SHAREPOINT_CA_BUNDLE"):
        client.site_id(server.site_url)


def test_the_configured_ca_bundle_overrides_those_of_the_environment(
    client: GraphClient, server: GraphServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    assert client.site_id(server.site_url)


def test_a_password_in_netrc_does_not_replace_the_token(
    client: GraphClient, server: GraphServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine localhost login someone password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert client.site_id(server.site_url)
