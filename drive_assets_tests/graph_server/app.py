"""The responses of Microsoft Graph: a site, its library, items, delta rounds, shared links and downloads."""

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from drive_assets_tests.graph_server.drive import Drive, Entry
from drive_assets_tests.graph_server.faults import BODY, RANGE, STATUS, Fault, Faults, Refusal
from drive_assets_tests.graph_server.login import Login, refusal

SITE_HOST, SITE_PATH = "contoso.sharepoint.com", "sites/drives"
ADDRESS = re.compile(r"/(?:root|items/(?P<id>[^/:]+))(?::/?(?P<path>[^:]*?)/?(?::|$))?(?P<action>/.*)?")
PIECE = 1 << 18
Show = Callable[[Any], dict[str, Any]]


@dataclass
class Call:
    """A request. `path` is decoded and has no query; header names are in Title-Case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    base: str
    """Scheme and host of the request, with which the links in the response begin."""
    item: str = ""
    """Path of the requested item in the library."""

    def __post_init__(self) -> None:
        self.address, _, query = self.target.partition("?")
        self.path = unquote(self.address)
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.where = f"{self.path}?{unquote(query)}"

    def link(self, **query: str) -> str:
        """The requested address with another query."""
        return f"{self.base}{self.address}?{urlencode(query, quote_via=quote)}"


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Refusal:
    return Refusal(JSONResponse({"error": {"code": code, "message": message}}, status, headers))


def not_found(what: str) -> Refusal:
    return error(404, "itemNotFound", f"The resource could not be found: {what}")


class Graph:
    """The service with one library. Its only state is tokens, shared links and delta rounds."""

    def __init__(self, drive: Drive, login: Login, faults: Faults, page_size: int) -> None:
        self.drive, self.login, self.faults, self.page_size = drive, login, faults, page_size
        self.site_id = f"{SITE_HOST},{_guid(SITE_HOST)},{_guid(SITE_PATH)}"
        self.site_url = f"https://{SITE_HOST}/{SITE_PATH}"
        self.shared: dict[str, tuple[str, bool]] = {}
        self._key = secrets.token_bytes(32)
        self._born = secrets.token_hex(4)  # links of an earlier server are unknown
        self._rounds: dict[str, tuple[list[tuple[Entry, bool]], int]] = {}
        """Items at the start of each delta round, with whether an earlier state is shown; the library's version."""

    def answer(self, call: Call) -> Response:
        found = re.match(r"(?:/v1\.0/drives/|/download/)[^/]+/(?:items/)?([^/:]+)", call.path)
        call.item = self.drive.path(found[1]) if found else ""
        try:
            if call.path.startswith("/v1.0/"):
                return self._graph(call)
            if call.path.startswith("/download/"):
                return self._download(call)
            return JSONResponse(self._login(call))
        except Refusal as refused:
            return refused.response

    # Login, Graph and downloads

    def _login(self, call: Call) -> dict[str, Any]:
        self._fail(call, must_match=True)
        tenant, _, action = call.path.lstrip("/").partition("/")
        if tenant != self.login.tenant_id:
            raise refusal(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.")
        form = dict(parse_qsl(call.body.decode()))
        if action == "v2.0/.well-known/openid-configuration":
            return self.login.configuration(call.base)
        if action == "oauth2/v2.0/token":
            return self.login.token(call.base, form)
        if action == "oauth2/v2.0/devicecode":
            return self.login.device_code(call.base, form)
        raise refusal(404, "not_found", f"no such endpoint: {call.path}")

    def _graph(self, call: Call) -> Response:
        self._fail(call)
        if self._take(call, "expired_token"):
            self.login.tokens.clear()
        of_user = self.login.tokens.get(call.headers.get("Authorization", "").removeprefix("Bearer "))
        if of_user is None:
            raise error(401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.")
        if call.method != "GET":
            raise error(405, "notAllowed", f"This server is read only: {call.method}")
        answer = self._route(call, call.path.removeprefix("/v1.0"), of_user)
        if fault := self._take(call, "rate_limit"):
            left, reset = str(fault.remaining), f"{fault.retry_after or 1:g}"
            answer.headers.update({"RateLimit-Limit": "1250", "RateLimit-Remaining": left, "RateLimit-Reset": reset})
        return answer

    def _download(self, call: Call) -> Response:
        self._fail(call)
        if fault := self._take(call, "expired_url"):
            raise error(fault.status or 401, fault.code or "unauthenticated", "The download URL has expired.")
        if "Authorization" in call.headers:
            raise error(401, "unauthenticated", "A pre-authenticated URL takes no Authorization header.")
        item_id = call.path.rpartition("/")[2]
        ends, _, signature = call.query.get("tempauth", "").partition(".")
        if not hmac.compare_digest(self._sign(item_id, ends), signature) or time.time() > float(ends):
            raise error(401, "unauthenticated", "The download URL is not valid any more.")
        file = self.drive.file(item_id)
        if file is None or not file.is_file():
            self.drive.refresh()
            file = self.drive.file(item_id)
        if file is None or not file.is_file():
            raise not_found(call.item)
        size, headers = file.stat().st_size, {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        status, start, end = 200, 0, size
        wrong = self._take(call, *RANGE) if "Range" in call.headers else None
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range", ""))
        if found and found[0] != "bytes=-" and not (wrong and wrong.kind == "ignore_range"):
            first, last = found.groups()
            start = int(first) if first else max(0, size - int(last))
            end = min(int(last) + 1, size) if first and last else size
            if start >= end:
                return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
            start += (-1 if start else 1) if wrong else 0
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
        fault, turn = self._take(call, *BODY), end
        if fault:
            turn = min(start + ((end - start) // 2 if fault.at is None else fault.at), end)
            end = turn if fault.kind == "truncate" else end
        headers["Content-Length"] = str(end - start)
        return StreamingResponse(_body(file, start, turn, end, fault), status, headers)

    def _take(self, call: Call, *kinds: str) -> Fault | None:
        return self.faults.take({*kinds}, call.where, call.item)

    def _fail(self, call: Call, must_match: bool = False) -> None:
        fault = self.faults.take({*STATUS}, call.where, call.item, must_match=must_match)
        if fault is None:
            return
        status, code, message = STATUS[fault.kind]
        headers = {}
        if fault.kind in ("throttle", "unavailable") and fault.retry_after is not None:
            headers["Retry-After"] = f"{fault.retry_after:g}"
        raise error(fault.status or status, fault.code or code, message, headers)

    # The site and the library

    def _route(self, call: Call, path: str, of_user: bool) -> Response:
        path = path.rstrip("/") or "/"
        if found := re.fullmatch(r"/sites/([^/:]+):/(.+?):?", path):
            host, where = found.groups()
            if host.lower() not in ("root", SITE_HOST) or where.strip("/").lower() != SITE_PATH:
                raise not_found(f"site {host}:/{where}")
            site = {"id": self.site_id, "name": "drives", "displayName": "Drives", "webUrl": self.site_url}
            return JSONResponse(site)
        if path == f"/sites/{self.site_id}/drives":
            shown = {"id": self.drive.id, "name": self.drive.name, "driveType": "documentLibrary"}
            return JSONResponse({"value": [shown]})
        if found := re.fullmatch(r"/shares/u!([^/]+)/driveItem", path):
            return JSONResponse(self._shared(call, found[1], of_user))
        if found := re.fullmatch(r"/drives/([^/]+)(/.*)", path):
            if found[1] != self.drive.id:
                raise not_found(f"drive {found[1]}")
            return self._items(call, found[2])
        raise error(400, "BadRequest", f"Resource not found for the segment: {path}")

    def share(self, path: str, anonymous: bool = False) -> str:
        """A sharing link to an item. An app-only token cannot open an anonymous one."""
        link = f"https://{SITE_HOST}/:f:/s/drives/E{secrets.token_urlsafe(24)}?e={secrets.token_hex(3)}"
        self.shared[link] = (path, anonymous)
        return link

    def _shared(self, call: Call, encoded: str, of_user: bool) -> dict[str, Any]:
        try:
            link = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        except ValueError:
            raise error(400, "invalidRequest", "The sharing token is not valid.") from None
        if link not in self.shared:
            raise error(404, "itemNotFound", "The sharing link no longer exists, or you do not have permission.")
        path, anonymous = self.shared[link]
        if anonymous and not of_user:
            raise error(403, "accessDenied", "An app-only token cannot open an anonymous link.")
        self.drive.refresh()
        entry = self.drive.find(path, self.drive.root_id)
        if entry is None:
            raise not_found(path)
        return self._show(call, entry, whole=True)

    # Items

    def _items(self, call: Call, tail: str) -> Response:
        found = ADDRESS.fullmatch(tail)
        if found is None:
            raise error(400, "BadRequest", f"Resource not found for the segment: {tail}")
        action = (found["action"] or "").rstrip("/")
        if delta := re.fullmatch(r"/delta(?:\(token='(.*)'\))?", action):
            if (found["id"] or self.drive.root_id) != self.drive.root_id or found["path"]:
                raise error(400, "notSupported", "Delta is supported at the root of a library only.")
            return JSONResponse(self._delta(call, call.query.get("token", delta[1] or "")))
        if action != "/content" and "$skiptoken" not in call.query:
            self.drive.refresh()
        entry = self.drive.entries.get(found["id"] or self.drive.root_id)
        if entry is not None and found["path"]:
            entry = self.drive.find(found["path"], entry.id)
        if entry is None:
            raise not_found(tail)
        call.item = self.drive.path(entry.id)
        if action == "":
            return JSONResponse(self._show(call, entry, whole=True))
        if action == "/children":
            token, items = call.query.get("$skiptoken", ""), self.drive.children(entry.id)
            return JSONResponse(
                self._page(call, items, "$skiptoken", token, token, lambda item: self._show(call, item, whole=True))
            )
        if action == "/content":
            if entry.is_folder:
                raise error(400, "invalidRequest", "A folder has no content.")
            return RedirectResponse(self._download_url(call, entry), 302)
        raise error(400, "BadRequest", f"Resource not found for the segment: {action}")

    def _page(self, call: Call, items: list, name: str, asked: str, token: str, show: Show) -> dict[str, Any]:
        """The page of items from the offset at the end of `token`, and the link to the next page, if there is one.

        Args:
            name: the query's parameter for tokens.
            asked: the token in the request.
        """
        prefix, _, offset = token.rstrip("~").rpartition(".")
        start, top = int(offset or 0), int(call.query.get("$top", self.page_size))
        end = min(start + max(1, min(top, 1000)), len(items))
        page, following = items[start:end], f"{prefix}.{end}" if end < len(items) else None
        if self._take(call, "empty_page"):
            page, following = [], f"{token}~"
        elif asked and self._take(call, "repeated_next"):
            following = asked
        next_link = {} if following is None else {"@odata.nextLink": call.link(**{**call.query, name: following})}
        return {"value": [show(item) for item in page], **next_link}

    # Delta

    def _delta(self, call: Call, token: str) -> dict[str, Any]:
        if token and (fault := self.faults.take({"gone"}, call.where)):
            raise self._gone(call, fault.code or "resyncRequired", fault.location)
        asked, (key, _, offset) = token, token.rstrip("~").partition(".")
        if token == "latest" or key in ("", self._born):
            self.drive.refresh()
        version, page = self.drive.version, {"value": []}
        if token != "latest":
            if key in ("", self._born):
                key = secrets.token_hex(8)
                token = f"{key}.0"
                self._rounds[key] = self._changes(call, int(offset or 0)), version
            if key not in self._rounds:
                raise self._gone(call, "resyncRequired", True)
            items, version = self._rounds[key]
            page = self._page(call, items, "token", asked, token, lambda item: self._show(call, item[0], stale=item[1]))
        if "@odata.nextLink" in page:
            return page
        return {**page, "@odata.deltaLink": call.link(**{**call.query, "token": f"{self._born}.{version}"})}

    def _gone(self, call: Call, code: str, location: bool) -> Refusal:
        headers = {"Location": call.link()} if location else {}
        return error(410, code, "The delta token is no longer valid. Start over.", headers)

    def _changes(self, call: Call, since: int) -> list[tuple[Entry, bool]]:
        take, entries = self.faults.take, self.drive.changes(since)
        if take({"missing_tombstone"}, call.where):
            entries = [entry for entry in entries if not entry.deleted]
        if take({"out_of_order"}, call.where):
            entries = entries[::-1]
        stale = [(entry, True) for entry in entries if take({"repeat_items"}, self.drive.path(entry.id))]
        return stale + [(entry, False) for entry in entries]

    # How an item looks

    def _show(self, call: Call, entry: Entry, whole: bool = False, stale: bool = False) -> dict[str, Any]:
        """An item as JSON. Without `whole`, for delta, it has neither cTag nor path; `stale`: as an empty file."""
        path, guid = self.drive.path(entry.id), _guid(entry.id)
        parent: dict[str, Any] = {"driveId": self.drive.id, "driveType": "documentLibrary"}
        item: dict[str, Any] = {"id": entry.id, "name": entry.name, "parentReference": parent}
        if entry.parent_id is None:
            item["root"] = {}
        else:
            parent["id"] = entry.parent_id
            if whole:
                above = quote(path.rpartition("/")[0])
                parent["path"] = f"/drives/{self.drive.id}/root:" + (f"/{above}" if above else "")
        if entry.is_folder:
            item["folder"] = {"childCount": len(self.drive.children(entry.id))}
        if entry.deleted:
            item["deleted"] = {"state": "deleted"}
            if self.faults.take({"nameless"}, path):
                del item["name"]
            return item
        item["eTag"] = f'"{{{guid}}},{entry.revision}"'
        item["lastModifiedDateTime"] = f"{datetime.fromtimestamp(entry.modified_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"
        item["size"] = 0 if stale else self.drive.total_size(entry)
        if entry.is_folder:
            return item
        if fault := self.faults.take({"wrong_size"}, path):
            item["size"] = int(item["size"] * fault.factor)
        item["file"] = {"mimeType": "application/octet-stream"}
        if (value := self._hash(entry, path, stale)) is not None:
            item["file"]["hashes"] = {"quickXorHash": value}
        if whole:
            item["@microsoft.graph.downloadUrl"] = self._download_url(call, entry)
            if not self.faults.take({"missing_ctag"}, path):
                item["cTag"] = f'"c:{{{guid}}},{entry.revision}"'
        if self.faults.take({"malware"}, path):
            item["malware"] = {"description": "Malware was detected in this file."}
        return item

    def _hash(self, entry: Entry, path: str, stale: bool) -> str | None:
        if stale:
            return "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
        if self.faults.take({"wrong_hash"}, path):
            return base64.b64encode(hashlib.sha1(path.encode()).digest()).decode()
        return None if self.faults.take({"missing_hash"}, path) else self.drive.hash(entry)

    def _download_url(self, call: Call, entry: Entry) -> str:
        ends = f"{time.time() + 3600:.0f}"
        return f"{call.base}/download/{self.drive.id}/{entry.id}?tempauth={ends}.{self._sign(entry.id, ends)}"

    def _sign(self, item_id: str, ends: str) -> str:
        return hmac.new(self._key, f"{item_id}/{ends}".encode(), hashlib.sha256).hexdigest()


async def _body(file: Path, start: int, turn: int, end: int, fault: Fault | None) -> AsyncIterator[bytes]:
    """The bytes of a file from `start` to `end`, with the fault at `turn`."""
    for piece in _pieces(file, start, turn):
        yield piece
    if fault is not None and turn < end:
        if fault.kind == "cut":
            raise ConnectionAbortedError
        if fault.kind == "stall":
            await asyncio.sleep(fault.seconds)
        if fault.kind == "changed_while_read":
            old = file.read_bytes()
            file.write_bytes(old[1:] + old[:1] if fault.content is None else fault.content)
        if fault.kind == "corrupt":
            yield bytes(byte ^ 255 for byte in next(_pieces(file, turn, turn + 1)))
            turn += 1
    for piece in _pieces(file, turn, end):
        yield piece


def _pieces(file: Path, start: int, end: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(start)
        while start < end and (piece := stream.read(min(PIECE, end - start))):
            yield piece
            start += len(piece)


def _guid(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, text))
