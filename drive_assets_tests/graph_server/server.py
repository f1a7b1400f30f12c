"""The local Graph server: Uvicorn with TLS on loopback around `app.Graph`."""

import asyncio
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import uvicorn
from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from drive_assets_tests.graph_server.app import Call, Graph
from drive_assets_tests.graph_server.drive import Drive, FolderDrive
from drive_assets_tests.graph_server.faults import Fault, Faults
from drive_assets_tests.graph_server.login import Login
from drive_assets_tests.graph_server.tls import certificates


@dataclass(frozen=True)
class Request:
    """A request and the status of its response. `path` includes the query; header names are in Title-Case."""

    method: str
    path: str
    headers: dict[str, str]
    status: int


class GraphServer:
    """Microsoft Graph, its login and its download addresses for one library, on 127.0.0.1.

    with GraphServer(folder) as server:
        client = GraphClient(SharePointSettings.from_environment(server.environment()))
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        drive: Drive | None = None,
        port: int = 0,
        page_size: int = 200,
        latency_s: float = 0.0,
    ) -> None:
        """Serve `folder`, or `drive`.

        Args:
            page_size: items per page, unless the client names a number.
            latency_s: added to each response.
        """
        self.drive, self.latency_s = drive or FolderDrive(folder or Path()), latency_s
        tls = certificates()
        self.ca_bundle, self.certificate_pem = tls.ca_bundle, tls.client_pem
        self.faults, login = Faults(), Login(tls.client)
        self.graph = Graph(self.drive, login, self.faults, page_size)
        self.share, self.site_url = self.graph.share, self.graph.site_url
        self.tenant_id, self.client_id, self.client_secret = login.tenant_id, login.client_id, login.client_secret
        self.requests: list[Request] = []
        self._socket = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port = int(self._socket.getsockname()[1])
        self.graph_url = self.login_url = f"https://localhost:{self.port}"
        options = {"interface": "asgi3", "lifespan": "off", "log_config": None, "log_level": "critical"}
        self._http = uvicorn.Server(uvicorn.Config(self._respond, ssl_certfile=tls.server_pem, **options))

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.run, args=([self._socket],), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.should_exit = self._http.force_exit = True
        self._thread.join()

    def environment(self) -> dict[str, str]:
        """The variables that point the product at this server."""
        return {
            "SHAREPOINT_TENANT_ID": self.tenant_id,
            "SHAREPOINT_CLIENT_ID": self.client_id,
            "SHAREPOINT_CLIENT_SECRET": self.client_secret,
            "SHAREPOINT_SITE": self.site_url,
            "SHAREPOINT_GRAPH_URL": self.graph_url,
            "SHAREPOINT_LOGIN_URL": self.login_url,
            "SHAREPOINT_CA_BUNDLE": str(self.ca_bundle),
        }

    def fail(self, fault: Fault) -> None:
        """Add a fault to those that are still to occur."""
        self.faults.add(fault)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HttpRequest(scope, receive)
        query = f"?{request.url.query}" if request.url.query else ""
        headers = {name.title(): value for name, value in request.headers.items()}
        target = scope["raw_path"].decode() + query
        call = Call(request.method, target, headers, await request.body(), str(request.base_url).rstrip("/"))
        await asyncio.sleep(self.latency_s)
        response = self.graph.answer(call)
        self.requests.append(Request(call.method, call.target, call.headers, response.status_code))
        await response(scope, receive, send)
