"""The identity platform: access tokens for a client secret, a signed assertion, a device code or a refresh token."""

import base64
import json
import secrets
import time
import uuid
from typing import Any

import jwt
from cryptography import x509
from starlette.responses import JSONResponse

from drive_assets_tests.graph_server.faults import Refusal

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def refusal(status: int, error: str, description: str) -> Refusal:
    return Refusal(JSONResponse({"error": error, "error_description": description}, status))


class Login:
    """One tenant with one registered application."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self.tenant_id, self.client_id = str(uuid.uuid4()), str(uuid.uuid4())
        self.client_secret = f"secret~{secrets.token_urlsafe(24)}"
        self.tokens: dict[str, bool] = {}
        """Valid access tokens, each with whether it is a user's."""
        self._certificate = certificate
        self._codes: set[str] = set()
        self._refresh: set[str] = set()

    def configuration(self, base: str) -> dict[str, Any]:
        tenant = f"{base}/{self.tenant_id}"
        return {
            "issuer": f"{tenant}/v2.0",
            "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
            "token_endpoint": f"{tenant}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{tenant}/oauth2/v2.0/devicecode",
        }

    def device_code(self, base: str, form: dict[str, str]) -> dict[str, Any]:
        self._check_client(form)
        code, user_code, where = secrets.token_urlsafe(32), secrets.token_hex(4).upper(), f"{base}/devicelogin"
        self._codes.add(code)
        message = f"To sign in, open {where} and enter the code {user_code}."
        answer = {"device_code": code, "user_code": user_code, "verification_uri": where, "message": message}
        return {**answer, "expires_in": 900, "interval": 1}

    def token(self, base: str, form: dict[str, str]) -> dict[str, Any]:
        self._check_client(form)
        grant = form.get("grant_type")
        if grant == "client_credentials":
            if form.get("scope", "").rpartition("/")[2] != ".default":  # rclone sends it without a host
                raise refusal(400, "invalid_scope", f"AADSTS1002012: scope {form.get('scope')!r} is not valid.")
            self._check_credential(base, form)
        elif grant == DEVICE:
            if form.get("device_code") not in self._codes:
                raise refusal(400, "bad_verification_code", "AADSTS7000218: the device code is not known.")
        elif grant == "refresh_token":
            if form.get("refresh_token") not in self._refresh:
                raise refusal(400, "invalid_grant", "AADSTS70008: the refresh token has expired.")
        else:
            raise refusal(400, "unsupported_grant_type", f"AADSTS70003: grant type {grant!r} is not supported.")
        token, of_user = secrets.token_urlsafe(48), grant != "client_credentials"
        self.tokens[token] = of_user
        answer = {"token_type": "Bearer", "access_token": token, "expires_in": 3600}
        return {**answer, **self._of_user()} if of_user else answer

    def _check_client(self, form: dict[str, str]) -> None:
        if form.get("client_id") != self.client_id:
            raise refusal(400, "unauthorized_client", f"AADSTS700016: no application {form.get('client_id')!r}.")

    def _check_credential(self, base: str, form: dict[str, str]) -> None:
        if form.get("client_assertion_type") == ASSERTION:
            self._check_assertion(base, form.get("client_assertion", ""))
        elif "client_secret" not in form:
            raise refusal(401, "invalid_client", "AADSTS7000216: client_secret or client_assertion is required.")
        elif form["client_secret"] != self.client_secret:
            raise refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")

    def _check_assertion(self, base: str, assertion: str) -> None:
        audience = self.configuration(base)["token_endpoint"]
        key: Any = self._certificate.public_key()
        try:
            claims = jwt.decode(assertion, key, algorithms=["RS256", "PS256"], audience=audience)
        except jwt.PyJWTError as error:
            raise refusal(401, "invalid_client", f"AADSTS700027: the assertion is not valid: {error}.") from error
        if not claims.get("iss") == claims.get("sub") == self.client_id:
            raise refusal(401, "invalid_client", "AADSTS700021: the assertion is not this application's.")

    def _of_user(self) -> dict[str, Any]:
        """A refresh token, and who has signed in."""
        refresh, now = secrets.token_urlsafe(48), int(time.time())
        self._refresh.add(refresh)
        claims = {"aud": self.client_id, "iss": f"https://localhost/{self.tenant_id}/v2.0", "sub": "user", "iat": now}
        claims |= {"exp": now + 3600, "tid": self.tenant_id, "preferred_username": "driver@contoso.com"}
        client_info = json.dumps({"uid": "user", "utid": self.tenant_id}).encode()
        return {
            "refresh_token": refresh,
            "scope": "Sites.Read.All",
            "id_token": jwt.encode(claims, secrets.token_bytes(32), algorithm="HS256"),
            "client_info": base64.urlsafe_b64encode(client_info).decode().rstrip("="),
        }
