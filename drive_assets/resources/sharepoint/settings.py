"""Where the library is and who asks: from the environment only, since half of it is secret."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from model.common.errors import DataError

CLOUDS = {
    "global": ("https://graph.microsoft.com", "https://login.microsoftonline.com"),
    "usgov": ("https://graph.microsoft.us", "https://login.microsoftonline.us"),
    "usdod": ("https://dod-graph.microsoft.us", "https://login.microsoftonline.us"),
    "china": ("https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
}
"""Graph's and the login's address of each cloud."""
SIGN_INS = ("secret", "certificate", "device_code")
MOST_WORKERS = 64


@dataclass(frozen=True)
class SharePointSettings:
    """Validated on construction: raises DataError that names the environment variable to mend."""

    tenant_id: str
    client_id: str
    secret: str = field(default="", repr=False)
    certificate: Path | None = None
    """PEM file with the private key and the certificate."""
    certificate_password: str = field(default="", repr=False)
    auth: str = "secret"
    """secret, certificate or device_code."""
    cloud: str = "global"
    graph_url: str = ""
    """Instead of the cloud's, for tests and proxies; likewise `login_url`."""
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
    """A sharing link instead of a site. Whoever has one may get in, so that it is kept out of logs."""
    company: str = "drive-assets"
    """In the User-Agent, so that the service's operators know whom to call."""
    workers: int = 8
    token_cache: Path | None = None
    """File (mode 0600) that keeps a device code sign-in, so that the daemon can use it; None keeps it in memory."""

    def __post_init__(self) -> None:
        _require(bool(self.tenant_id), "SHAREPOINT_TENANT_ID", "the directory (tenant) id of the app registration")
        _require(bool(self.client_id), "SHAREPOINT_CLIENT_ID", "the application (client) id of the app registration")
        _require(self.auth in SIGN_INS, "SHAREPOINT_AUTH", f"one of {', '.join(SIGN_INS)}, not {self.auth!r}")
        if self.auth == "secret":
            _require(
                bool(self.secret),
                "SHAREPOINT_CLIENT_SECRET",
                "the app's secret; or set SHAREPOINT_CLIENT_CERTIFICATE, or SHAREPOINT_AUTH=device_code",
            )
        if self.auth == "certificate":
            what = "a PEM file with private key and certificate"
            _require(self.certificate is not None, "SHAREPOINT_CLIENT_CERTIFICATE", what)
            _require(_is_file(self.certificate), "SHAREPOINT_CLIENT_CERTIFICATE", f"{what}; {self.certificate} is none")
        _require(self.cloud in CLOUDS, "SHAREPOINT_CLOUD", f"one of {', '.join(CLOUDS)}, not {self.cloud!r}")
        for name, url in (("GRAPH_URL", self.graph_url), ("LOGIN_URL", self.login_url), ("SITE", self.site)):
            _require(
                not url or _is_https(url), f"SHAREPOINT_{name}", f"an address that starts with https://, not {url}"
            )
        link_is_right = not self.shared_link or _is_https(self.shared_link)
        _require(link_is_right, "SHAREPOINT_SHARED_LINK", "an address that starts with https://")
        bundle_is_right = self.ca_bundle is None or _is_file(self.ca_bundle)
        _require(bundle_is_right, "SHAREPOINT_CA_BUNDLE", f"a PEM file; {self.ca_bundle} is none")
        company_is_right = self.company.isascii() and self.company.isprintable() and "|" not in self.company
        _require(company_is_right and bool(self.company), "SHAREPOINT_COMPANY", "a name in ASCII without |")
        _require(0 < self.workers <= MOST_WORKERS, "SHAREPOINT_WORKERS", f"1 to {MOST_WORKERS}, not {self.workers}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "SharePointSettings | None":
        """The settings of the `SHAREPOINT_...` variables (docs/sharepoint.md), or None without SHAREPOINT_TENANT_ID.

        Raises:
            DataError: a variable is missing or wrong.
        """
        values = os.environ if environment is None else environment

        def value(name: str, default: str = "") -> str:
            return values.get(f"SHAREPOINT_{name}", "").strip() or default

        def path(name: str) -> Path | None:
            return Path(value(name)).expanduser() if value(name) else None

        if not value("TENANT_ID"):
            return None
        workers = value("WORKERS", "8")
        _require(workers.isdecimal(), "SHAREPOINT_WORKERS", f"a whole number, not {workers!r}")
        return cls(
            tenant_id=value("TENANT_ID"),
            client_id=value("CLIENT_ID"),
            secret=value("CLIENT_SECRET"),
            certificate=path("CLIENT_CERTIFICATE"),
            certificate_password=value("CLIENT_CERTIFICATE_PASSWORD"),
            auth=value("AUTH", "certificate" if value("CLIENT_CERTIFICATE") else "secret"),
            cloud=value("CLOUD", "global"),
            graph_url=value("GRAPH_URL"),
            login_url=value("LOGIN_URL"),
            ca_bundle=path("CA_BUNDLE"),
            site=value("SITE"),
            library=value("LIBRARY"),
            folder=value("FOLDER"),
            shared_link=value("SHARED_LINK"),
            company=value("COMPANY", "drive-assets"),
            workers=int(workers),
            token_cache=path("TOKEN_CACHE"),
        )

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
        """All that the app was granted."""
        return f"{self.graph}/.default"

    @property
    def verify(self) -> str | bool:
        """What requests calls `verify`."""
        return str(self.ca_bundle) if self.ca_bundle else True


def _require(right: bool, variable: str, expected: str) -> None:
    if not right:
        raise DataError(f"{variable} must be set to {expected}. See docs/sharepoint.md.")


def _is_https(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and bool(parts.hostname)


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()
