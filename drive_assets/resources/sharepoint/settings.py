"""The library's address and the credentials, from the environment only, since half of them are secret."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from model.common.errors import DataError

CLOUDS = {
    "global": ("https://graph.microsoft.com", "https://login.microsoftonline.com"),
    "usgov": ("https://graph.microsoft.us", "https://login.microsoftonline.us"),
    "usdod": ("https://dod-graph.microsoft.us", "https://login.microsoftonline.us"),
    "china": ("https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
}
"""Address of Graph and of the login in each cloud."""
SIGN_INS = ("secret", "certificate", "device_code")
MAX_WORKERS = 64
PATHS = ("client_certificate", "ca_bundle", "token_cache")
TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two pieces of a response."""


@dataclass(frozen=True)
class SharePointSettings:
    """Validated on construction: raises DataError that names the environment variable to correct."""

    tenant_id: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    client_certificate: Path | None = None
    """PEM file with the private key and the certificate."""
    client_certificate_password: str = field(default="", repr=False)
    auth: str = "secret"
    """secret, certificate or device_code."""
    cloud: str = "global"
    graph_url: str = ""
    """Replaces the cloud's address, for tests and proxies; likewise `login_url`."""
    login_url: str = ""
    ca_bundle: Path | None = None
    """PEM file of the authorities to trust instead of the public ones."""
    site: str = ""
    """Address of the site, such as https://contoso.sharepoint.com/sites/drives."""
    library: str = ""
    """Name of the document library; empty for the site's first."""
    folder: str = ""
    """Path of the folder in the library; empty for its root."""
    shared_link: str = field(default="", repr=False)
    """A sharing link instead of a site. It may grant access to whoever has it, so it is kept out of logs."""
    company: str = "drive-assets"
    """In the User-Agent, so that the service's operators know whom to contact."""
    workers: int = 8
    token_cache: Path | None = None
    """File (mode 0600) that keeps a device code sign-in, so that the daemon can use it; None keeps it in memory."""

    def __post_init__(self) -> None:
        pem = "a PEM file with private key and certificate"
        conditions = {
            "TENANT_ID": (bool(self.tenant_id), "the directory (tenant) id of the app registration"),
            "CLIENT_ID": (bool(self.client_id), "the application (client) id of the app registration"),
            "AUTH": (self.auth in SIGN_INS, f"one of {', '.join(SIGN_INS)}, not {self.auth!r}"),
            "CLIENT_SECRET": (
                self.auth != "secret" or bool(self.client_secret),
                "the app's secret; or set SHAREPOINT_CLIENT_CERTIFICATE, or SHAREPOINT_AUTH=device_code",
            ),
            "CLIENT_CERTIFICATE": (
                self.auth != "certificate" or _is_file(self.client_certificate),
                f"{pem}; {self.client_certificate} is none" if self.client_certificate else pem,
            ),
            "CLOUD": (self.cloud in CLOUDS, f"one of {', '.join(CLOUDS)}, not {self.cloud!r}"),
            "GRAPH_URL": (_is_https(self.graph_url), f"an address that starts with https://, not {self.graph_url}"),
            "LOGIN_URL": (_is_https(self.login_url), f"an address that starts with https://, not {self.login_url}"),
            "SITE": (_is_https(self.site), f"an address that starts with https://, not {self.site}"),
            "SHARED_LINK": (_is_https(self.shared_link), "an address that starts with https://"),
            "CA_BUNDLE": (not self.ca_bundle or _is_file(self.ca_bundle), f"a PEM file; {self.ca_bundle} is none"),
            "COMPANY": (bool(re.fullmatch(r"[ -{}~]+", self.company)), "a name in ASCII without |"),
            "WORKERS": (0 < self.workers <= MAX_WORKERS, f"a number from 1 to {MAX_WORKERS}"),
        }
        for name, (is_valid, expected) in conditions.items():
            if not is_valid:
                raise DataError(f"SHAREPOINT_{name} must be set to {expected}. See docs/sharepoint.md.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "SharePointSettings | None":
        """The settings of the `SHAREPOINT_...` variables (docs/sharepoint.md), or None without SHAREPOINT_TENANT_ID.

        Raises:
            DataError: a variable is missing or invalid.
        """
        values: dict[str, Any] = {}
        for name in (each.name for each in fields(cls)):
            text = (os.environ if environment is None else environment).get(f"SHAREPOINT_{name.upper()}", "").strip()
            if text and name in PATHS:
                values[name] = Path(text).expanduser()
            elif text:
                values[name] = text
        if "tenant_id" not in values:
            return None
        workers = values.get("workers", "8")
        values["workers"] = int(workers) if workers.isdecimal() else 0
        values.setdefault("auth", "certificate" if "client_certificate" in values else "secret")
        return cls(**{"client_id": "", **values})

    @property
    def graph(self) -> str:
        """Graph's address without version and final slash."""
        return (self.graph_url or CLOUDS[self.cloud][0]).rstrip("/").removesuffix("/v1.0")

    @property
    def authority(self) -> str:
        """The login's address of the tenant."""
        return f"{(self.login_url or CLOUDS[self.cloud][1]).rstrip('/')}/{self.tenant_id}"

    @property
    def scope(self) -> str:
        """All permissions that the app was granted."""
        return f"{self.graph}/.default"

    @property
    def verify(self) -> str | bool:
        """The `verify` argument of requests."""
        return str(self.ca_bundle) if self.ca_bundle else True


def _is_https(url: str) -> bool:
    """Whether an address, if set, can be used."""
    parts = urlsplit(url)
    return not url or (parts.scheme == "https" and bool(parts.hostname))


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()
