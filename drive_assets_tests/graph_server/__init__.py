"""A Microsoft Graph server for tests and for the demo: it serves a real folder, and misbehaves when it is told to."""

from drive_assets_tests.graph_server.drive import Drive, FolderDrive, SyntheticDrive
from drive_assets_tests.graph_server.faults import Fault
from drive_assets_tests.graph_server.server import GraphServer, Request

__all__ = ["Drive", "Fault", "FolderDrive", "GraphServer", "Request", "SyntheticDrive"]
