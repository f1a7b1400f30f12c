"""Access tokens from msal: for an app with a secret or certificate, or for a user who signs in by device code."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from drive_assets.resources.sharepoint.items import AccessError, SharePointError, Unavailable
from drive_assets.resources.sharepoint.pace import Pace
from drive_assets.resources.sharepoint.responses import Operation, Response, connection_error, scrub
from drive_assets.resources.sharepoint.settings import TIMEOUT_S, SharePointSettings
from model.common.errors import DataError

if TYPE_CHECKING:
    import msal

RENEWED_BEFORE_S = 300.0
"""A token is renewed this long before it expires."""
TRANSIENT = ("temporarily_unavailable", "server_error", "timeout")
SIGNING_IN = Operation("Signing in")


class MsalTokens:
    """Tokens of one app. Thread-safe. Makes no network call until the first token is requested.

    A device code's sign-in is kept in memory, and in `settings.token_cache` (mode 0600) if that is set, so that the
    daemon can use the sign-in that `drive-assets sharepoint check` made.
    """

    def __init__(
        self, settings: SharePointSettings, pace: Pace, on_device_code: Callable[[str], None] | None = None
    ) -> None:
        self._settings = settings
        self._pace = pace
        self._clock = pace.clock
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
        failure: SharePointError | None = None
        answer: dict[str, Any] = {}
        try:
            answer = self._ask()
        except requests.HTTPError as error:
            response = Response(error.response, SIGNING_IN, is_graph=False)
            failure = response.transient_error(self._pace) or response.error()
        except OSError as error:  # those of requests are among them
            failure = connection_error(error, self._settings.authority, SIGNING_IN)
        except DataError:
            raise
        except (ValueError, TypeError) as error:  # an invalid authority, a key that cannot be read
            failure = AccessError(
                f"Signing in failed ({type(error).__name__}): the tenant is unknown or the certificate unreadable. "
                "Check SHAREPOINT_TENANT_ID, SHAREPOINT_CLOUD and SHAREPOINT_CLIENT_CERTIFICATE with its password."
            )
        if failure is None and "access_token" not in answer:
            failure = _refusal(answer)
        if failure is not None:  # raised out here: a chained exception could hold secrets
            raise failure
        lifetime = float(answer.get("expires_in", 3600))
        self._token, self._refused = answer["access_token"], False
        self._valid_until = self._clock.monotonic() + max(lifetime - RENEWED_BEFORE_S, lifetime / 2)

    def _ask(self) -> dict[str, Any]:
        """msal's answer, from a new application: a used one remembers failures and refused tokens."""
        if self._settings.auth == "device_code":
            return self._ask_user()
        import msal

        settings = self._settings
        credential = _certificate(settings) if settings.auth == "certificate" else settings.client_secret
        app = msal.ConfidentialClientApplication(settings.client_id, client_credential=credential, **self._connection())
        return app.acquire_token_for_client([settings.scope])

    def _ask_user(self) -> dict[str, Any]:
        import msal

        if self._cache is None:
            self._cache = msal.SerializableTokenCache()
            path = self._settings.token_cache
            if path is not None and path.is_file():
                self._cache.deserialize(path.read_text(encoding="utf-8"))
        app = msal.PublicClientApplication(self._settings.client_id, token_cache=self._cache, **self._connection())
        scopes, accounts, answer = [self._settings.scope], app.get_accounts(), None
        if accounts:
            answer = app.acquire_token_silent_with_error(scopes, accounts[0], force_refresh=self._refused)
        if answer is None or answer.get("error") == "invalid_grant":
            if self._on_device_code is None:
                raise AccessError(
                    "No user is signed in to SharePoint, or the sign-in expired: run `drive-assets sharepoint check`, "
                    "with SHAREPOINT_TOKEN_CACHE set to a file that the daemon reads too."
                )
            flow = app.initiate_device_flow(scopes)
            if "message" not in flow:
                return flow
            self._on_device_code(flow["message"])
            answer = app.acquire_token_by_device_flow(flow)
        self._save_cache()
        return answer

    def _connection(self) -> dict[str, Any]:
        return {
            "authority": self._settings.authority,
            "instance_discovery": False,
            "http_client": _LoginSession(self._settings.verify),
        }

    def _save_cache(self) -> None:
        path = self._settings.token_cache
        if path is None or self._cache is None or not self._cache.has_state_changed:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        # Created with its mode, so that no other user can read it at any time.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(self._cache.serialize())
        temporary.replace(path)


class _LoginSession(requests.Session):
    """msal's HTTP client. `verify` is passed with each call: REQUESTS_CA_BUNDLE would override the session's."""

    def __init__(self, verify: str | bool) -> None:
        super().__init__()
        self._verify = verify

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().request(*args, **{"timeout": TIMEOUT_S, **kwargs, "verify": self._verify})
        if response.status_code == 429 or response.status_code >= 500:  # msal would keep only the body of a 429
            raise requests.HTTPError(response=response)
        return response


def _certificate(settings: SharePointSettings) -> dict[str, str]:
    path = settings.client_certificate or Path()
    text = path.read_text(encoding="ascii", errors="replace")
    for marker, what in (("PRIVATE KEY-----", "private key"), ("-----BEGIN CERTIFICATE-----", "certificate")):
        if marker not in text:
            raise DataError(f"{path} (SHAREPOINT_CLIENT_CERTIFICATE) has no {what}: expected both in one PEM file.")
    password = settings.client_certificate_password
    return {"private_key": text, "public_certificate": text, "passphrase": password}


def _refusal(answer: dict[str, Any]) -> SharePointError:
    """The error for an answer without a token, without its correlation ids and times."""
    code = str(answer.get("error") or "unknown")
    description = scrub(str(answer.get("error_description") or "").split("Trace ID")[0])
    kind = Unavailable if code in TRANSIENT else AccessError
    return kind(
        f"Signing in failed: {code} ({description}). Check SHAREPOINT_TENANT_ID, SHAREPOINT_CLIENT_ID and the secret "
        "or certificate, and that it has not expired.",
        code=code,
    )
