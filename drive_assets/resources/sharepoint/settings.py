"""The library's address and the credentials, from the environment only, since half of them are secret."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FilePath, ValidationError

from model.common.errors import DataError

CLOUDS = {
    "global": ("https://graph.microsoft.com", "https://login.microsoftonline.com"),
    "usgov": ("https://graph.microsoft.us", "https://login.microsoftonline.us"),
    "usdod": ("https://dod-graph.microsoft.us", "https://login.microsoftonline.us"),
    "china": ("https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
}
"""Address of Graph and of the login in each cloud."""
MAX_WORKERS = 64
TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two pieces of a response."""


def _check_https(url: str) -> str:
    parts = urlsplit(url)
    if url and not (parts.scheme == "https" and parts.hostname):
        raise ValueError("no https address")
    return url


def _expand_user(path: str) -> Path:
    return Path(path).expanduser()


Https = Annotated[str, AfterValidator(_check_https)]
PemFile = Annotated[FilePath, BeforeValidator(_expand_user)]
ADDRESS = "an address that starts with https://"


class SharePointSettings(BaseModel):
    """The `SHAREPOINT_...` variables. A description completes "must be set to"."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    tenant_id: str = Field(min_length=1, description="the directory (tenant) id of the app registration")
    client_id: str = Field(min_length=1, description="the application (client) id of the app registration")
    client_secret: str = Field(
        "",
        repr=False,
        description="the app's secret; or set SHAREPOINT_CLIENT_CERTIFICATE, or SHAREPOINT_AUTH=device_code",
    )
    client_certificate: PemFile | None = Field(None, description="a PEM file with private key and certificate")
    client_certificate_password: str = Field("", repr=False)
    auth: Literal["secret", "certificate", "device_code"] = Field(
        "secret", description="secret, certificate or device_code"
    )
    cloud: Literal["global", "usgov", "usdod", "china"] = Field("global", description=f"one of {', '.join(CLOUDS)}")
    graph_url: Https = Field("", description=ADDRESS)
    """Replaces the cloud's address, for tests and proxies; likewise `login_url`."""
    login_url: Https = Field("", description=ADDRESS)
    ca_bundle: PemFile | None = Field(None, description="a PEM file of the authorities to trust")
    site: Https = Field("", description=ADDRESS)
    """Address of the site, such as https://contoso.sharepoint.com/sites/drives."""
    library: str = ""
    """Name of the document library; empty for the site's first."""
    folder: str = ""
    """Path of the folder in the library; empty for its root."""
    shared_link: Https = Field("", repr=False, description=ADDRESS)
    """A sharing link instead of a site. It may grant access to whoever has it, so it is kept out of logs."""
    company: str = Field("drive-assets", pattern=r"^[ -{}~]+$", description="a name in ASCII without |")
    """In the User-Agent, so that the service's operators know whom to contact."""
    workers: int = Field(8, ge=1, le=MAX_WORKERS, description=f"a number from 1 to {MAX_WORKERS}")
    token_cache: Annotated[Path, BeforeValidator(_expand_user)] | None = None
    """File (mode 0600) that keeps a device code sign-in, so that the daemon can use it; None keeps it in memory."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "SharePointSettings | None":
        """The settings of the `SHAREPOINT_...` variables (docs/sharepoint.md), or None without SHAREPOINT_TENANT_ID.

        Raises:
            DataError: a variable is missing or invalid.
        """
        variables = os.environ if environment is None else environment
        texts = {name: variables.get(f"SHAREPOINT_{name.upper()}", "").strip() for name in cls.model_fields}
        values: dict[str, Any] = {name: text for name, text in texts.items() if text}
        if "tenant_id" not in values:
            return None
        values.setdefault("auth", "certificate" if "client_certificate" in values else "secret")
        wrong = f"client_{values['auth']}"
        if wrong not in ("client_secret", "client_certificate") or wrong in values:
            try:
                return cls(**values)
            except ValidationError as error:
                wrong = str(error.errors()[0]["loc"][0])
        expected = cls.model_fields[wrong].description
        raise DataError(f"SHAREPOINT_{wrong.upper()} must be set to {expected}. See docs/sharepoint.md.")

    @property
    def graph(self) -> str:
        """Graph's address without version and final slash."""
        return (self.graph_url or CLOUDS[self.cloud][0]).rstrip("/").removesuffix("/v1.0")

    @property
    def authority(self) -> str:
        """The login's address of the tenant."""
        return f"{(self.login_url or CLOUDS[self.cloud][1]).rstrip('/')}/{self.tenant_id}"
