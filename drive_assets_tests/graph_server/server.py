"""The local Graph server: TLS on loopback around `app.Graph`, with faults in the bodies of responses."""

import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from drive_assets_tests.graph_server.app import Answer, Call, Graph
from drive_assets_tests.graph_server.drive import Drive, FolderDrive
from drive_assets_tests.graph_server.faults import Fault, Faults
from drive_assets_tests.graph_server.login import Login
from drive_assets_tests.graph_server.tls import certificates

PIECE = 1 << 18


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
        self.ca_bundle, self.certificate_pem = certificates().ca_bundle, certificates().client_pem
        self.login, self.faults = Login(certificates().client), Faults()
        self.graph = Graph(self.drive, self.login, self.faults, page_size)
        self.tenant_id, self.client_id = self.login.tenant_id, self.login.client_id
        self.client_secret, self.site_url = self.login.client_secret, self.graph.site_url
        self.requests: list[Request] = []
        self._http = _Server(("127.0.0.1", port), _Handler, self)
        self.graph_url = self.login_url = f"https://localhost:{self.port}"

    @property
    def port(self) -> int:
        return int(self._http.server_port)

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

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

    def share(self, path: str, anonymous: bool = False) -> str:
        """A sharing link to an item of the library."""
        return self.graph.share(path, anonymous)

    def answer(self, call: Call) -> Answer:
        if self.latency_s:
            time.sleep(self.latency_s)
        answer = self.graph.answer(call)
        self.requests.append(Request(call.method, call.target, call.headers, answer.status))
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], owner: GraphServer) -> None:
        self.owner = owner
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """TLS handshake in the connection's thread, so that a slow client does not stop others."""
        with certificates().server.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: `GraphServer.requests` records the requests."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.title(): value for name, value in self.headers.items()}
        call = Call(self.command, self.path, headers, body, f"https://{headers.get('Host', 'localhost')}")
        answer = self.server.owner.answer(call)
        fault = answer.fault
        length = answer.length if answer.file else len(answer.body)
        if fault is not None and fault.kind == "truncate":
            length = min(length, _place(fault, answer))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if answer.file is None:
            self.wfile.write(answer.body)
        else:
            self._send_file(answer, length)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _send_file(self, answer: Answer, length: int) -> None:
        """Send the bytes of a file, with the fault at its position."""
        assert answer.file is not None
        fault, position, end = answer.fault, answer.start, answer.start + length
        turn = end if fault is None else min(answer.start + _place(fault, answer), end)
        while position < end:
            if fault is not None and position == turn:
                position += self._fail(fault, answer.file, position)
                if self.close_connection:
                    return
                fault = None
            stop = end if fault is None else turn
            with answer.file.open("rb") as stream:
                stream.seek(position)
                while position < stop and (piece := stream.read(min(PIECE, stop - position))):
                    self.wfile.write(piece)
                    position += len(piece)
            if position < stop:  # the file became shorter
                self.close_connection = True
                return

    def _fail(self, fault: Fault, file: Path, position: int) -> int:
        """Make a fault happen; returns the number of bytes that it sent."""
        self.wfile.flush()
        if fault.kind == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.kind == "stall":
            time.sleep(fault.seconds)
        elif fault.kind == "changed_while_read":
            old = file.read_bytes()
            file.write_bytes(old[1:] + old[:1] if fault.content is None else fault.content)
        elif fault.kind == "corrupt":
            with file.open("rb") as stream:
                stream.seek(position)
                self.wfile.write(bytes([stream.read(1)[0] ^ 255]))
            return 1
        return 0


def _place(fault: Fault, answer: Answer) -> int:
    """Bytes of the body before the fault."""
    return answer.length // 2 if fault.at is None else fault.at
