"""The local Graph server: real TLS on loopback round `app.Graph`, with bodies that misbehave when they are told to."""

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
    """A request as it was answered. `path` holds the query; header names are in Title-Case."""

    method: str
    path: str
    headers: dict[str, str]
    status: int


class GraphServer:
    """Microsoft Graph, its login and its download addresses, over one folder, on 127.0.0.1.

    with GraphServer(folder) as server:
        client = GraphClient(SharePointSettings.from_environment(server.environment()))
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        drive: Drive | None = None,
        port: int = 0,
        token_seconds: float = 3600,
        page_size: int = 200,
        latency_s: float = 0.0,
        url_seconds: float = 3600,
        pending: int = 0,
    ) -> None:
        """Args:
        folder: what the document library holds; or `drive`, one of `drive`'s libraries.
        page_size: items a page where the client asks for no number.
        latency_s: added to each answer.
        url_seconds: how long a download address is good.
        pending: polls of a device code before its user has signed in.
        """
        if drive is None:
            if folder is None:
                raise ValueError("GraphServer needs a folder or a drive.")
            drive = FolderDrive(folder)
        made = certificates()
        self.drive, self.latency_s = drive, latency_s
        self.ca_bundle, self.certificate_pem = made.ca_bundle, made.client_pem
        self.login, self.faults = Login(made.client, token_seconds, pending), Faults()
        self.graph = Graph([drive], self.login, self.faults, page_size, url_seconds)
        self.requests: list[Request] = []
        self._http = _Server(("127.0.0.1", port), _Handler, self)
        self.graph_url = self.login_url = f"https://localhost:{self.port}"

    @property
    def port(self) -> int:
        return int(self._http.server_port)

    @property
    def tenant_id(self) -> str:
        return self.login.tenant_id

    @property
    def client_id(self) -> str:
        return self.login.client_id

    @property
    def client_secret(self) -> str:
        return self.login.client_secret

    @property
    def site_url(self) -> str:
        return self.graph.site_url

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
        """Misbehave so, beside what was asked for before."""
        self.faults.add(fault)

    def share(self, path: str, anonymous: bool = False) -> str:
        """A sharing link to an item of the library."""
        return self.graph.share(self.drive, path, anonymous)

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
        """The handshake is done here, in the connection's own thread: a slow client stops no other."""
        with certificates().server.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: what was asked stands in `requests`."""

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
        """The bytes of a file; at the place that the fault names, what it asks for happens."""
        assert answer.file is not None
        fault, position, end = answer.fault, answer.start, answer.start + length
        turn = end if fault is None else min(answer.start + _place(fault, answer), end)
        while position < end:
            if fault is not None and position == turn:
                position += self._misbehave(fault, answer.file, position)
                if self.close_connection:
                    return
                fault = None
            stop = end if fault is None else turn
            with answer.file.open("rb") as stream:
                stream.seek(position)
                while position < stop and (piece := stream.read(min(PIECE, stop - position))):
                    self.wfile.write(piece)
                    position += len(piece)
            if position < stop:  # the file has become shorter
                self.close_connection = True
                return

    def _misbehave(self, fault: Fault, file: Path, position: int) -> int:
        """Do what a fault asks for; returns how many bytes were sent in doing it."""
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
    """Bytes of the body after which a fault sets in."""
    return answer.length // 2 if fault.at is None else fault.at
