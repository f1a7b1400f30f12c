"""Items from Graph's JSON, whose facets are sometimes missing."""

import pytest

from drive_assets.resources.sharepoint.errors import SharePointError, scrub
from drive_assets.resources.sharepoint.items import Item, parse_item
from drive_assets.resources.sharepoint.transport import quote_id, quote_path
from model.common.errors import DataError

FILE = {
    "id": "01ABC",
    "name": "telemetry.csv",
    "size": 1234,
    "eTag": '"{1},2"',
    "cTag": '"c:{1},7"',
    "parentReference": {"driveId": "b!x", "id": "01PARENT"},
    "lastModifiedDateTime": "2026-03-01T10:11:12.5Z",
    "file": {"mimeType": "text/csv", "hashes": {"quickXorHash": "SgAAAAAAAAAAAAAAAQAAAAAAAAA="}},
}


def test_a_file() -> None:
    expected = Item(
        id="01ABC",
        name="telemetry.csv",
        parent_id="01PARENT",
        size=1234,
        is_folder=False,
        deleted=False,
        quick_xor_hash="SgAAAAAAAAAAAAAAAQAAAAAAAAA=",
        etag='"{1},2"',
        modified="2026-03-01T10:11:12.5Z",
        malware=False,
    )
    assert parse_item(FILE) == expected


def test_a_folder_the_root_and_a_malicious_file() -> None:
    assert parse_item({"id": "1", "name": "x", "folder": {"childCount": 2}}).is_folder
    assert parse_item({"id": "1", "name": "root", "root": {}}).is_folder
    assert parse_item({**FILE, "malware": {"description": "EICAR"}}).malware


def test_a_deleted_item_may_have_only_its_id() -> None:
    item = parse_item({"id": "01ABC", "deleted": {"state": "deleted"}})
    assert (item.deleted, item.name, item.parent_id, item.modified) == (True, "", None, "")


def test_identity_is_hash_and_size_else_etag_else_time_and_size_and_never_the_ctag() -> None:
    without_hash = {**FILE, "file": {}}
    without_etag = {key: value for key, value in without_hash.items() if key != "eTag"}
    assert parse_item(FILE).identity == "SgAAAAAAAAAAAAAAAQAAAAAAAAA=:1234"
    assert parse_item({**FILE, "eTag": "other", "cTag": "other"}).identity == parse_item(FILE).identity
    assert parse_item(without_hash).identity == '"{1},2"'
    assert parse_item(without_etag).identity == "2026-03-01T10:11:12.5Z:1234"
    assert parse_item({**without_etag, "cTag": "other"}).identity == parse_item(without_etag).identity


def test_every_segment_of_a_path_is_encoded_and_ids_keep_their_exclamation_mark() -> None:
    assert quote_path("/Drives/100% #1/ä b+c&d/") == "Drives/100%25%20%231/%C3%A4%20b%2Bc%26d"
    assert quote_id("b!-x_Y,guid") == "b!-x_Y,guid"
    with pytest.raises(DataError, match=r"segment \. or \.\."):
        quote_path("a/../b")


def test_quoted_messages_lose_what_follows_the_host_of_an_address() -> None:
    assert scrub("see https://a.b/c?tempauth=x\n for  more") == "see https://a.b/... for more"


def test_an_error_is_one_line_whatever_the_name_in_it() -> None:
    assert str(SharePointError("Downloading a\nERROR b.zip failed")) == "Downloading a\\nERROR b.zip failed"
