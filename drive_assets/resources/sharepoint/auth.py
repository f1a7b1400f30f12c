"""Access tokens from msal: for an app with a secret or certificate, or for a user who signs in by device code."""

import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import requests

from drive_assets.resources.sharepoint.errors import AccessError, Operation, SharePointError, scrub
from drive_assets.resources.sharepoint.settings import SharePointSettings
from model.common.downloads import Clock
from model.common.errors import DataError
from model.common.files import atomic_path

if TYPE_CHECKING:
    import msal

RENEWED_BEFORE_S = 300.0
"""A token is renewed this long before it expires."""
SIGNING_IN = Operation("Signing in")
Send = Callable[..., requests.Response]
"""`Transport.send`."""


class MsalTokens:
    """Tokens of one app. Thread-safe. Makes no network call until the first token is requested.

    A device code's sign-in is kept in memory, and in `settings.token_cache` (mode 0600) if that is set, so that the
    daemon can use the sign-in that `drive-assets sharepoint check` made.
    """

    def __init__(
        self, settings: SharePointSettings, send: Send, clock: Clock, on_device_code: Callable[[str], None] | None
    ) -> None:
        self._settings, self._send, self._clock = settings, send, clock
        self._scopes = [f"{settings.graph}/.default"]
        self._on_device_code = on_device_code
        self._lock = threading.Lock()
        self._cache: msal.SerializableTokenCache | None = None
        self._token = ""
        self._valid_until = 0.0
        self._refused = False

    def token(self) -> str:
        """A token that is valid for some minutes.

        Raises:
            AccessError: the credentials are refused, or a user must sign in.
            Unavailable: a retry can help.
        """
        with self._lock:
            if not self._token or self._clock.monotonic() >= self._valid_until:
                self._acquire()
            return self._token

    def renew(self, refused: str) -> None:
        """Forget a token that the service refused, unless another worker has done so."""
        with self._lock:
            if refused == self._token:
                self._token, self._refused = "", True

    def _acquire(self) -> None:
        answer: dict[str, Any] | None = None
        failures: list[DataError] = []

        def request(method: str, url: str, **options: Any) -> requests.Response:
            try:
                return self._send(SIGNING_IN, method, url, **options)
            except SharePointError as error:
                failures.append(error)
                raise

        try:
            answer = self._ask(
                SimpleNamespace(get=partial(request, "GET"), post=partial(request, "POST"), close=lambda: None)
            )
        except Exception as error:  # an invalid authority, a key that cannot be read
            kind = type(error).__name__
            failures += [error] if isinstance(error, DataError) else []
        # Raised out here: a chained exception could hold secrets. msal hides the failures of requests.
        if failures and "access_token" not in (answer or {}):
            raise failures[0]
        if answer is None:
            raise AccessError(
                f"Signing in failed ({kind}): the tenant is unknown or the certificate unreadable. Check "
                "SHAREPOINT_TENANT_ID, SHAREPOINT_CLOUD and SHAREPOINT_CLIENT_CERTIFICATE (private key and certificate "
                "in one PEM file) with its password."
            )
        if "access_token" not in answer:
            code = str(answer.get("error") or "unknown")
            description = scrub(str(answer.get("error_description") or "").split("Trace ID")[0])
            raise AccessError(
                f"Signing in failed: {code} ({description}). Check SHAREPOINT_TENANT_ID, SHAREPOINT_CLIENT_ID and the "
                "secret or certificate, and that it has not expired.",
                code=code,
            )
        lifetime = float(answer.get("expires_in", 3600))
        self._token, self._refused = answer["access_token"], False
        self._valid_until = self._clock.monotonic() + max(lifetime - RENEWED_BEFORE_S, lifetime / 2)

    def _ask(self, http_client: SimpleNamespace) -> dict[str, Any]:
        """msal's answer, from a new application: a used one remembers failures and refused tokens."""
        import msal

        settings = self._settings
        options = {"authority": settings.authority, "instance_discovery": False, "http_client": http_client}
        if settings.auth == "device_code":
            return self._ask_user(options)
        credential: str | dict[str, str] = settings.client_secret
        if settings.auth == "certificate" and settings.client_certificate is not None:
            pem = settings.client_certificate.read_text(encoding="ascii", errors="replace")
            password = settings.client_certificate_password
            credential = {"private_key": pem, "public_certificate": pem, "passphrase": password}
        app = msal.ConfidentialClientApplication(settings.client_id, client_credential=credential, **options)
        return app.acquire_token_for_client(self._scopes)

    def _ask_user(self, options: dict[str, Any]) -> dict[str, Any]:
        import msal

        path = self._settings.token_cache
        if self._cache is None:
            self._cache = msal.SerializableTokenCache()
            if path is not None and path.is_file():
                self._cache.deserialize(path.read_text(encoding="utf-8"))
        app = msal.PublicClientApplication(self._settings.client_id, token_cache=self._cache, **options)
        accounts, answer = app.get_accounts(), None
        if accounts:
            answer = app.acquire_token_silent_with_error(self._scopes, accounts[0], force_refresh=self._refused)
        if answer is None or answer.get("error") == "invalid_grant":
            if self._on_device_code is None:
                raise AccessError(
                    "No user is signed in to SharePoint, or the sign-in expired: run `drive-assets sharepoint check`, "
                    "with SHAREPOINT_TOKEN_CACHE set to a file that the daemon reads too."
                )
            flow = app.initiate_device_flow(self._scopes)
            if "message" not in flow:
                return flow
            self._on_device_code(flow["message"])
            answer = app.acquire_token_by_device_flow(flow)
        if path is not None and self._cache.has_state_changed:
            with atomic_path(path) as temporary:
                temporary.touch(0o600)  # before the content, so that no other user can read it at any time
                temporary.write_text(self._cache.serialize(), encoding="utf-8")
        return answer
