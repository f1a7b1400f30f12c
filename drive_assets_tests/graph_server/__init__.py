"""A Microsoft Graph server for tests and for the demo: it serves a folder, with the faults that a test requests."""

from drive_assets_tests.graph_server.faults import Fault
from drive_assets_tests.graph_server.server import GraphServer, Request

__all__ = ["Fault", "GraphServer", "Request"]
