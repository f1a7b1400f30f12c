"""The responses of Microsoft Graph: a site, its library, items, delta rounds, shared links and downloads."""

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from drive_assets_tests.graph_server.drive import Drive, Entry
from drive_assets_tests.graph_server.faults import BODY, RANGE, STATUS, Fault, Faults
from drive_assets_tests.graph_server.login import Login, LoginError

SITE_HOST, SITE_PATH = "contoso.sharepoint.com", "sites/drives"
ADDRESS = re.compile(r"/(?:root|items/(?P<id>[^/:]+))(?::/?(?P<path>[^:]*?)/?(?::|$))?(?P<action>/.*)?")


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
        path, _, query = self.target.partition("?")
        self.path = unquote(path)
        self.query = {name.lstrip("$"): value for name, value in parse_qsl(query, keep_blank_values=True)}
        self.where = f"{self.path}?{unquote(query)}"


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: Path | None = None
    """A file whose bytes from `start` to `start + length` are the body instead."""
    start: int = 0
    length: int = 0
    fault: Fault | None = None
    """What goes wrong with the body."""


class GraphError(Exception):
    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}

    def answer(self) -> Answer:
        return as_json({"error": {"code": self.code, "message": self.message}}, self.status, self.headers)


def as_json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(content).encode())


def not_found(what: str) -> GraphError:
    return GraphError(404, "itemNotFound", f"The resource could not be found: {what}")


Round = tuple[list[tuple[Entry, bool]], int]
"""A delta round: the items at its start, each with whether its earlier state is shown, and the library's version."""


class Graph:
    """The service with one library. Its only state is tokens, shared links and delta rounds."""

    def __init__(self, drive: Drive, login: Login, faults: Faults, page_size: int) -> None:
        self.drive, self.login, self.faults, self.page_size = drive, login, faults, page_size
        self.site_id = f"{SITE_HOST},{_guid(SITE_HOST)},{_guid(SITE_PATH)}"
        self.site_url = f"https://{SITE_HOST}/{SITE_PATH}"
        self.shared: dict[str, tuple[str, bool]] = {}
        self._key = secrets.token_bytes(32)
        self._born = secrets.token_hex(4)  # links of an earlier server are unknown
        self._rounds: dict[str, Round] = {}

    def answer(self, call: Call) -> Answer:
        call.item = self._item_path(call)
        try:
            if call.path.startswith("/v1.0/"):
                return self._graph(call)
            if call.path.startswith("/download/"):
                return self._download(call)
            return self._login(call)
        except GraphError as error:
            return error.answer()
        except LoginError as error:
            return as_json(error.body, error.status)

    # Login, Graph and downloads

    def _login(self, call: Call) -> Answer:
        self._fail(call, must_match=True)
        tenant, _, action = call.path.lstrip("/").partition("/")
        if tenant != self.login.tenant_id:
            raise LoginError(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.")
        form = dict(parse_qsl(call.body.decode()))
        if (call.method, action) == ("GET", "v2.0/.well-known/openid-configuration"):
            return as_json(self.login.configuration(call.base))
        if (call.method, action) == ("POST", "oauth2/v2.0/token"):
            return as_json(self.login.token(call.base, form))
        if (call.method, action) == ("POST", "oauth2/v2.0/devicecode"):
            return as_json(self.login.device_code(call.base, form))
        raise LoginError(404, "not_found", f"no such endpoint: {call.path}")

    def _graph(self, call: Call) -> Answer:
        self._fail(call)
        if self.faults.take({"expired_token"}, call.where, call.item):
            self.login.revoke()
        of_user = self.login.check(call.headers.get("Authorization", "").removeprefix("Bearer "))
        if of_user is None:
            raise GraphError(401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.")
        if call.method != "GET":
            raise GraphError(405, "notAllowed", f"This server is read only: {call.method}")
        answer = self._route(call, call.path.removeprefix("/v1.0"), of_user)
        if fault := self.faults.take({"rate_limit"}, call.where, call.item):
            left, reset = fault.remaining, f"{fault.retry_after or 1:g}"
            answer.headers |= {"RateLimit-Limit": "1250", "RateLimit-Remaining": str(left), "RateLimit-Reset": reset}
        return answer

    def _download(self, call: Call) -> Answer:
        self._fail(call)
        if fault := self.faults.take({"expired_url"}, call.where, call.item):
            raise GraphError(fault.status or 401, fault.code or "unauthenticated", "The download URL has expired.")
        if "Authorization" in call.headers:
            raise GraphError(401, "unauthenticated", "A pre-authenticated URL takes no Authorization header.")
        item_id = call.path.rpartition("/")[2]
        ends, _, signature = call.query.get("tempauth", "").partition(".")
        if not hmac.compare_digest(self._sign(item_id, ends), signature) or time.time() > float(ends):
            raise GraphError(401, "unauthenticated", "The download URL is not valid any more.")
        file = self.drive.file(item_id)
        if file is None or not file.is_file():
            self.drive.refresh()
            file = self.drive.file(item_id)
        if file is None or not file.is_file():
            raise not_found(call.item)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        answer = _range(file, call.headers.get("Range"), headers, self._take_range(call))
        answer.fault = self.faults.take(BODY, call.where, call.item)
        return answer

    def _take_range(self, call: Call) -> Fault | None:
        if "Range" not in call.headers:
            return None
        return self.faults.take(RANGE, call.where, call.item)

    def _fail(self, call: Call, must_match: bool = False) -> None:
        """Raise the next error that a test requested."""
        fault = self.faults.take(set(STATUS), call.where, call.item, must_match=must_match)
        if fault is None:
            return
        status, code, message = STATUS[fault.kind]
        headers = {}
        if fault.kind in ("throttle", "unavailable") and fault.retry_after is not None:
            headers["Retry-After"] = f"{fault.retry_after:g}"
        raise GraphError(fault.status or status, fault.code or code, message, headers)

    # The site and the library

    def _route(self, call: Call, path: str, of_user: bool) -> Answer:
        path = path.rstrip("/") or "/"
        if found := re.fullmatch(r"/sites/([^/:]+):/(.+?):?", path):
            host, where = found.groups()
            if host.lower() not in ("root", SITE_HOST) or where.strip("/").lower() != SITE_PATH:
                raise not_found(f"site {host}:/{where}")
            return as_json({"id": self.site_id, "name": "drives", "displayName": "Drives", "webUrl": self.site_url})
        if path == f"/sites/{self.site_id}/drives":
            shown = {"id": self.drive.id, "name": self.drive.name, "driveType": "documentLibrary"}
            return as_json({"value": [shown]})
        if found := re.fullmatch(r"/shares/u!([^/]+)/driveItem", path):
            return self._shared(call, found[1], of_user)
        if found := re.fullmatch(r"/drives/([^/]+)(/.*)", path):
            if found[1] != self.drive.id:
                raise not_found(f"drive {found[1]}")
            with self.drive.lock:
                return self._items(call, found[2])
        raise GraphError(400, "BadRequest", f"Resource not found for the segment: {path}")

    def share(self, path: str, anonymous: bool = False) -> str:
        """A sharing link to an item. An app-only token cannot open an anonymous one."""
        link = f"https://{SITE_HOST}/:f:/s/drives/E{secrets.token_urlsafe(24)}?e={secrets.token_hex(3)}"
        self.shared[link] = (path, anonymous)
        return link

    def _shared(self, call: Call, encoded: str, of_user: bool) -> Answer:
        try:
            link = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        except ValueError:
            raise GraphError(400, "invalidRequest", "The sharing token is not valid.") from None
        if link not in self.shared:
            raise GraphError(404, "itemNotFound", "The sharing link no longer exists, or you do not have permission.")
        path, anonymous = self.shared[link]
        if anonymous and not of_user:
            raise GraphError(403, "accessDenied", "An app-only token cannot open an anonymous link.")
        with self.drive.lock:
            self.drive.refresh()
            entry = self.drive.find(path, self.drive.root_id)
            if entry is None:
                raise not_found(path)
            return as_json(self._show(call, entry, whole=True))

    # Items

    def _items(self, call: Call, tail: str) -> Answer:
        found = ADDRESS.fullmatch(tail)
        if found is None:
            raise GraphError(400, "BadRequest", f"Resource not found for the segment: {tail}")
        action = (found["action"] or "").rstrip("/")
        if delta := re.fullmatch(r"/delta(?:\(token='(.*)'\))?", action):
            call.query.setdefault("token", delta[1] or "")
            if (found["id"] or self.drive.root_id) != self.drive.root_id or found["path"]:
                raise GraphError(400, "notSupported", "Delta is supported at the root of a library only.")
            return self._delta(call)
        if action != "/content" and "skiptoken" not in call.query:
            self.drive.refresh()
        entry = self.drive.entries.get(found["id"] or self.drive.root_id)
        if entry is not None and found["path"]:
            entry = self.drive.find(found["path"], entry.id)
        if entry is None:
            raise not_found(tail)
        call.item = self.drive.path(entry.id)
        if action == "":
            return as_json(self._show(call, entry, whole=True))
        if action == "/children":
            return self._children(call, entry)
        if action == "/content":
            if entry.is_folder:
                raise GraphError(400, "invalidRequest", "A folder has no content.")
            return Answer(302, {"Location": self._download_url(call, entry)})
        raise GraphError(400, "BadRequest", f"Resource not found for the segment: {action}")

    def _item_path(self, call: Call) -> str:
        """Path of the item whose id is in a request, for faults to match."""
        found = re.match(r"(?:/v1\.0/drives/|/download/)[^/]+/(?:items/)?([^/:]+)", call.path)
        return self.drive.path(found[1]) if found else ""

    def _children(self, call: Call, folder: Entry) -> Answer:
        after = call.query.get("skiptoken", "").rstrip("~")
        items = [entry for entry in self.drive.children(folder.id) if entry.name.lower() > after]
        page, token = items[: self._top(call)], None
        if len(items) > len(page):
            token = page[-1].name.lower()
        page, token = self._spoil_page(call, page, token, call.query.get("skiptoken"))
        answer: dict[str, Any] = {"value": [self._show(call, entry, whole=True) for entry in page]}
        if token is not None:
            query = {f"${name}": value for name, value in call.query.items()} | {"$skiptoken": token}
            answer["@odata.nextLink"] = self._link(call, query)
        return as_json(answer)

    def _top(self, call: Call) -> int:
        return max(1, min(int(call.query["top"]), 1000)) if "top" in call.query else self.page_size

    def _link(self, call: Call, query: dict[str, str]) -> str:
        path = call.target.partition("?")[0]
        return f"{call.base}{path}?{urlencode(query, quote_via=quote)}"

    def _spoil_page(self, call: Call, page: list, token: str | None, asked: str | None) -> tuple[list, str | None]:
        if self.faults.take({"empty_page"}, call.where, call.item):
            return [], f"{asked or ''}~"  # an empty page before this one
        if asked and self.faults.take({"repeated_next"}, call.where, call.item):
            return page, asked
        return page, token

    # Delta

    def _delta(self, call: Call) -> Answer:
        token = call.query.get("token", "")
        if token and (fault := self.faults.take({"gone"}, call.where)):
            raise self._gone(call, fault.code or "resyncRequired", fault.location)
        key, _, offset = token.rstrip("~").partition(".")
        if token == "latest" or key in ("", self._born):
            self.drive.refresh()
        if token == "latest":
            return as_json({"value": [], "@odata.deltaLink": self._delta_link(call, self.drive.version)})
        if key in ("", self._born):
            key = secrets.token_hex(8)
            since = int(offset or 0)
            self._rounds[key] = self._spoil_round(call, self.drive.changes(since)), self.drive.version
            offset = "0"
        if key not in self._rounds:
            raise self._gone(call, "resyncRequired", True)
        start, (shown, version) = int(offset), self._rounds[key]
        page = shown[start : start + self._top(call)]
        end = start + len(page)
        following = f"{key}.{end}" if end < len(shown) else None
        page, spoilt = self._spoil_page(call, page, following, token)
        if not page and spoilt != following:
            spoilt = f"{key}.{start}{'~' * (1 + token.count('~'))}"
        answer: dict[str, Any] = {"value": [self._show(call, entry, stale=stale) for entry, stale in page]}
        if spoilt is None:
            answer["@odata.deltaLink"] = self._delta_link(call, version)
        else:
            answer["@odata.nextLink"] = self._link(call, {"token": spoilt})
        return as_json(answer)

    def _delta_link(self, call: Call, version: int) -> str:
        return self._link(call, {"token": f"{self._born}.{version}"})

    def _gone(self, call: Call, code: str, location: bool) -> GraphError:
        headers = {"Location": self._link(call, {})} if location else {}
        return GraphError(410, code, "The delta token is no longer valid. Start over.", headers)

    def _spoil_round(self, call: Call, entries: list[Entry]) -> list[tuple[Entry, bool]]:
        take = self.faults.take
        if take({"missing_tombstone"}, call.where):
            entries = [entry for entry in entries if not entry.deleted]
        if take({"out_of_order"}, call.where):
            entries = entries[::-1]
        shown = [(entry, False) for entry in entries]
        stale = [(entry, True) for entry in entries if take({"repeat_items"}, self.drive.path(entry.id))]
        return stale + shown

    # How an item looks

    def _show(self, call: Call, entry: Entry, whole: bool = False, stale: bool = False) -> dict[str, Any]:
        """An item as JSON. Without `whole`, for delta, it has neither cTag nor path; `stale`: as an empty file."""
        path = self.drive.path(entry.id)
        guid = _guid(entry.id)
        when = datetime.fromtimestamp(entry.modified_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        parent: dict[str, Any] = {"driveId": self.drive.id, "driveType": "documentLibrary"}
        if entry.parent_id is not None:
            parent["id"] = entry.parent_id
            if whole:
                above = quote(path.rpartition("/")[0])
                parent["path"] = f"/drives/{self.drive.id}/root:" + (f"/{above}" if above else "")
        item: dict[str, Any] = {"id": entry.id, "name": entry.name, "parentReference": parent}
        if entry.deleted:
            item["deleted"] = {"state": "deleted"}
            if self.faults.take({"nameless"}, path):
                del item["name"]
        else:
            item |= {
                "eTag": f'"{{{guid}}},{entry.revision}"',
                "lastModifiedDateTime": when,
                "size": 0 if stale else self.drive.total_size(entry),
            }
        if entry.is_folder:
            item["folder"] = {"childCount": len(self.drive.children(entry.id))}
        if entry.parent_id is None:
            item["root"] = {}
        if not entry.is_folder and not entry.deleted:
            if fault := self.faults.take({"wrong_size"}, path):
                item["size"] = int(item["size"] * fault.factor)
            item["file"] = self._file_facet(entry, path, stale)
            if whole:
                item["@microsoft.graph.downloadUrl"] = self._download_url(call, entry)
                if not self.faults.take({"missing_ctag"}, path):
                    item["cTag"] = f'"c:{{{guid}}},{entry.revision}"'
            if self.faults.take({"malware"}, path):
                item["malware"] = {"description": "Malware was detected in this file."}
        return item

    def _file_facet(self, entry: Entry, path: str, stale: bool) -> dict[str, Any]:
        facet: dict[str, Any] = {"mimeType": "application/octet-stream"}
        if stale:
            facet["hashes"] = {"quickXorHash": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}
        elif self.faults.take({"wrong_hash"}, path):
            facet["hashes"] = {"quickXorHash": base64.b64encode(hashlib.sha1(path.encode()).digest()).decode()}
        elif not self.faults.take({"missing_hash"}, path) and (value := self.drive.hash(entry)) is not None:
            facet["hashes"] = {"quickXorHash": value}
        return facet

    def _download_url(self, call: Call, entry: Entry) -> str:
        ends = f"{time.time() + 3600:.0f}"
        return f"{call.base}/download/{self.drive.id}/{entry.id}?tempauth={ends}.{self._sign(entry.id, ends)}"

    def _sign(self, item_id: str, ends: str) -> str:
        return hmac.new(self._key, f"{item_id}/{ends}".encode(), hashlib.sha256).hexdigest()


def _range(file: Path, asked: str | None, headers: dict[str, str], fault: Fault | None) -> Answer:
    """The whole file, or the part that a Range header names."""
    size = file.stat().st_size
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if found is None or found[0] == "bytes=-" or (fault is not None and fault.kind == "ignore_range"):
        return Answer(200, headers, file=file, length=size)
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if start >= size or end < start:
        return Answer(416, {**headers, "Content-Range": f"bytes */{size}"})
    if fault is not None:
        start = start - 1 if start else start + 1
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return Answer(206, headers, file=file, start=start, length=end - start + 1)


def _guid(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, text))
