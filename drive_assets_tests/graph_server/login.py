"""The identity platform: access tokens for a client secret, a signed assertion, a device code or a refresh token."""

import base64
import json
import secrets
import threading
import time
import uuid
from dataclasses import dataclass, field

import jwt
from cryptography import x509

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class LoginError(Exception):
    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(description)
        self.status, self.body = status, {"error": error, "error_description": description}


@dataclass
class Login:
    """One tenant with one registered application."""

    certificate: x509.Certificate
    tenant_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_secret: str = field(default_factory=lambda: f"secret~{secrets.token_urlsafe(24)}", repr=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[str, bool] = {}  # whether an access token is a user's
        self._codes: set[str] = set()
        self._refresh: set[str] = set()

    def configuration(self, base: str) -> dict[str, object]:
        tenant = f"{base}/{self.tenant_id}"
        return {
            "issuer": f"{tenant}/v2.0",
            "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
            "token_endpoint": f"{tenant}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{tenant}/oauth2/v2.0/devicecode",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            "response_types_supported": ["code"],
        }

    def device_code(self, base: str, form: dict[str, str]) -> dict[str, object]:
        self._check_client(form)
        code = secrets.token_urlsafe(32)
        self._codes.add(code)
        where, user_code = f"{base}/devicelogin", secrets.token_hex(4).upper()
        message = f"To sign in, open {where} and enter the code {user_code}."
        answer = {"device_code": code, "user_code": user_code, "verification_uri": where, "message": message}
        return {**answer, "expires_in": 900, "interval": 1}

    def token(self, base: str, form: dict[str, str]) -> dict[str, object]:
        self._check_client(form)
        grant = form.get("grant_type")
        if grant == "client_credentials":
            if form.get("scope", "").rpartition("/")[2] != ".default":  # rclone sends it without a host
                raise LoginError(400, "invalid_scope", f"AADSTS1002012: scope {form.get('scope')!r} is not valid.")
            self._check_credential(base, form)
            return self._issue(of_user=False)
        if grant == DEVICE:
            if form.get("device_code") not in self._codes:
                raise LoginError(400, "bad_verification_code", "AADSTS7000218: the device code is not known.")
            return self._issue(of_user=True)
        if grant == "refresh_token":
            if form.get("refresh_token") not in self._refresh:
                raise LoginError(400, "invalid_grant", "AADSTS70008: the refresh token has expired.")
            return self._issue(of_user=True)
        raise LoginError(400, "unsupported_grant_type", f"AADSTS70003: grant type {grant!r} is not supported.")

    def check(self, token: str) -> bool | None:
        """Whether a valid access token is a user's; None for an invalid one."""
        return self._tokens.get(token)

    def revoke(self) -> None:
        """Invalidate every access token."""
        with self._lock:
            self._tokens.clear()

    def _check_client(self, form: dict[str, str]) -> None:
        if form.get("client_id") != self.client_id:
            raise LoginError(400, "unauthorized_client", f"AADSTS700016: no application {form.get('client_id')!r}.")

    def _check_credential(self, base: str, form: dict[str, str]) -> None:
        if form.get("client_assertion_type") == ASSERTION:
            self._check_assertion(base, form.get("client_assertion", ""))
        elif "client_secret" not in form:
            raise LoginError(401, "invalid_client", "AADSTS7000216: client_secret or client_assertion is required.")
        elif form["client_secret"] != self.client_secret:
            raise LoginError(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")

    def _check_assertion(self, base: str, assertion: str) -> None:
        audience = f"{base}/{self.tenant_id}/oauth2/v2.0/token"
        key = self.certificate.public_key()
        try:
            claims = jwt.decode(assertion, key, algorithms=["RS256", "PS256"], audience=audience)  # type: ignore[arg-type]
        except jwt.PyJWTError as error:
            raise LoginError(401, "invalid_client", f"AADSTS700027: the assertion is not valid: {error}.") from error
        if not claims.get("iss") == claims.get("sub") == self.client_id:
            raise LoginError(401, "invalid_client", "AADSTS700021: the assertion is not this application's.")

    def _issue(self, of_user: bool) -> dict[str, object]:
        token = secrets.token_urlsafe(48)
        with self._lock:
            self._tokens[token] = of_user
        answer: dict[str, object] = {"token_type": "Bearer", "access_token": token, "expires_in": 3600}
        if not of_user:
            return answer
        refresh = secrets.token_urlsafe(48)
        self._refresh.add(refresh)
        now = int(time.time())
        claims = {"aud": self.client_id, "iss": f"https://localhost/{self.tenant_id}/v2.0", "sub": "user", "iat": now}
        claims |= {"exp": now + 3600, "tid": self.tenant_id, "preferred_username": "driver@contoso.com"}
        answer |= {"refresh_token": refresh, "scope": "Sites.Read.All"}
        answer["id_token"] = jwt.encode(claims, secrets.token_bytes(32), algorithm="HS256")
        answer["client_info"] = _base64(json.dumps({"uid": "user", "utid": self.tenant_id}).encode())
        return answer


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
