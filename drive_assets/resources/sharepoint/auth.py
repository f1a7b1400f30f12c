"""Access tokens, by msal: of an app that has a secret or a certificate, or of a user who signs in by device code."""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from drive_assets.resources.sharepoint.answers import Advice, Answer, Trouble, connection_failure, scrub
from drive_assets.resources.sharepoint.items import AccessError
from drive_assets.resources.sharepoint.pace import Pace
from drive_assets.resources.sharepoint.settings import SharePointSettings
from drive_assets.resources.sharepoint.transport import TIMEOUT_S
from model.common.errors import DataError

if TYPE_CHECKING:
    import msal

RENEWED_BEFORE_S = 300.0
"""A token is renewed so long before it ends."""
PASSING = ("temporarily_unavailable", "server_error", "timeout")
SIGNING_IN = Advice("Signing in")


class MsalTokens:
    """Tokens of one app. Thread-safe. Makes no network call until the first one is asked for.

    A device code's sign-in is kept in memory, and in `settings.token_cache` (mode 0600) if that is set, so that the
    daemon can go on with what `drive-assets sharepoint check` began.
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
        self._good_until = 0.0
        self._refused = False

    def token(self) -> str:
        """A token that is good for some minutes.

        Raises:
            AccessError: the credentials are refused, or a user must sign in.
            Trouble: asking again can help.
        """
        with self._lock:
            if not self._token or self._clock.now() >= self._good_until:
                self._acquire()
            return self._token

    def renew(self, refused: str) -> None:
        """Forget a token that the service refused, unless another worker has done so."""
        with self._lock:
            if refused == self._token:
                self._token, self._refused = "", True

    def _acquire(self) -> None:
        failure: Exception | None = None
        answer: dict[str, Any] = {}
        try:
            answer = self._ask()
        except requests.HTTPError as error:
            failure = self._unavailable(error.response)
        except requests.RequestException as error:
            failure = connection_failure(error, self._settings.authority, SIGNING_IN)
        except (ValueError, TypeError) as error:  # an authority that is no such thing, a key that cannot be read
            if isinstance(error, DataError):
                raise
            failure = AccessError(
                f"Signing in failed ({type(error).__name__}): the login does not know the tenant, or the certificate "
                "cannot be read. Check SHAREPOINT_TENANT_ID, SHAREPOINT_CLOUD and SHAREPOINT_CLIENT_CERTIFICATE with "
                "its password."
            )
        if failure is None and "access_token" not in answer:
            failure = _refusal(answer)
        if failure is not None:
            raise failure
        lifetime = float(answer.get("expires_in", 3600))
        self._token, self._refused = answer["access_token"], False
        self._good_until = self._clock.now() + max(lifetime - RENEWED_BEFORE_S, lifetime / 2)

    def _unavailable(self, response: requests.Response) -> Trouble:
        answer = Answer(response, is_graph=False)
        wait = answer.retry_after() if answer.status in (429, 503) else None
        if wait is not None:
            self._pace.pause(wait)
        return Trouble(answer.error(SIGNING_IN), paused=wait is not None)

    def _ask(self) -> dict[str, Any]:
        """msal's answer, of an application made anew: one that was used remembers failures and refused tokens."""
        if self._settings.auth == "device_code":
            return self._ask_user()
        return self._confidential().acquire_token_for_client([self._settings.scope])

    def _ask_user(self) -> dict[str, Any]:
        scopes, app = [self._settings.scope], self._public()
        accounts = app.get_accounts()
        answer = None
        if accounts:
            answer = app.acquire_token_silent_with_error(scopes, accounts[0], force_refresh=self._refused)
        if answer is None or answer.get("error") == "invalid_grant":
            if self._on_device_code is None:
                raise AccessError(
                    "Nobody is signed in to SharePoint, or not any more: run `drive-assets sharepoint check`, with "
                    "SHAREPOINT_TOKEN_CACHE set to a file that the daemon reads too."
                )
            flow = app.initiate_device_flow(scopes)
            if "message" not in flow:
                return flow
            self._on_device_code(flow["message"])
            answer = app.acquire_token_by_device_flow(flow)
        self._keep_cache()
        return answer

    def _confidential(self) -> "msal.ConfidentialClientApplication":
        import msal

        settings = self._settings
        credential = _certificate(settings) if settings.auth == "certificate" else settings.secret
        return msal.ConfidentialClientApplication(
            settings.client_id,
            client_credential=credential,
            authority=settings.authority,
            instance_discovery=False,
            http_client=_LoginSession(settings.verify),
        )

    def _public(self) -> "msal.PublicClientApplication":
        import msal

        if self._cache is None:
            self._cache = msal.SerializableTokenCache()
            kept = self._settings.token_cache
            if kept is not None and kept.is_file():
                self._cache.deserialize(kept.read_text(encoding="utf-8"))
        return msal.PublicClientApplication(
            self._settings.client_id,
            authority=self._settings.authority,
            instance_discovery=False,
            http_client=_LoginSession(self._settings.verify),
            token_cache=self._cache,
        )

    def _keep_cache(self) -> None:
        kept = self._settings.token_cache
        if kept is None or self._cache is None or not self._cache.has_state_changed:
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        # Made with its mode, so that there is no moment in which others can read it.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(self._cache.serialize())
        temporary.replace(kept)


class _LoginSession(requests.Session):
    """msal's way out. `verify` is given with every call: REQUESTS_CA_BUNDLE would override that of a session."""

    def __init__(self, verify: str | bool) -> None:
        super().__init__()
        self._verify = verify

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().request(*args, **{"timeout": TIMEOUT_S, **kwargs, "verify": self._verify})
        if response.status_code == 429 or response.status_code >= 500:  # of 429, msal would keep the body alone
            raise requests.HTTPError(response=response)
        return response


def _certificate(settings: SharePointSettings) -> dict[str, str]:
    path = settings.certificate or Path()
    text = path.read_text(encoding="ascii", errors="replace")
    key = re.search(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", text, re.DOTALL)
    certificates = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    if key is None or not certificates:
        what = "private key" if key is None else "certificate"
        raise DataError(f"{path} (SHAREPOINT_CLIENT_CERTIFICATE) holds no {what}: expected both, as PEM, in one file.")
    credential = {"private_key": key[0], "public_certificate": "\n".join(certificates)}
    if settings.certificate_password:
        credential["passphrase"] = settings.certificate_password
    return credential


def _refusal(answer: dict[str, Any]) -> Exception:
    """What an answer without a token means. Its correlation ids and times are left out."""
    kind = str(answer.get("error") or "unknown")
    description = scrub(str(answer.get("error_description") or "").split("Trace ID")[0])
    error = AccessError(
        f"Signing in failed: {kind} ({description}). Check SHAREPOINT_TENANT_ID, SHAREPOINT_CLIENT_ID and the secret "
        "or certificate, and that it has not expired.",
        code=kind,
    )
    return Trouble(error) if kind in PASSING else error
