"""The front door of the web servers: no foreign web page and no other user of the machine gets in.

python -m drive_assets.running.front_door dagster OPTION...    # Dagster's webserver, with its own options
python -m drive_assets.running.front_door mlflow HOST PORT
"""

import hashlib
import json
import os
import secrets
import sys
from urllib.parse import urlencode, urlsplit

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

SETTINGS = "FRONT_DOOR"
"""Environment variable of a server behind the door: hosts, token, page. Not DRIVE_ASSETS_..., which jobs inherit."""
FOREIGN_HOST = 400
"""The status with which TrustedHostMiddleware refuses other host names."""


class FrontDoor:
    """Lets requests of the server's own pages pass, and of whoever has the token; None admits everybody.

    The token comes once in the address, then in a cookie, or from scripts as `Authorization: Bearer TOKEN`. An address
    with nothing but the token leads to `page`.
    """

    def __init__(self, app: ASGIApp, token: str | None, page: str = "/") -> None:
        self.app, self.token, self.page, self.cookie = app, token, page, cookie_name(token or "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await (self._answer(HTTPConnection(scope)) or self.app)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _answer(self, connection: HTTPConnection) -> Response | None:
        """The answer to a request that does not pass."""
        origin = connection.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != connection.headers.get("host"):
            return PlainTextResponse("Pages of other sites may not use this server.", 403)
        is_get = connection.scope.get("method", "GET") != "POST"
        if is_get and connection.url.path.rstrip("/").endswith("/graphql") and "query" in connection.query_params:
            return PlainTextResponse("Send GraphQL queries by POST: a link must not change anything.", 405)
        if self.token is None:
            return None
        if self._is_token(connection.query_params.get("token")):
            return self._admit(connection, self.token)
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        if self._is_token(connection.cookies.get(self.cookie)) or (
            scheme.lower() == "bearer" and self._is_token(bearer)
        ):
            return None
        return PlainTextResponse("Open the address that `drive-assets ui` prints: it holds a token.", 403)

    def _admit(self, connection: HTTPConnection, token: str) -> Response:
        """Keep the token in a cookie, and open the page without the token in its address."""
        rest = urlencode([pair for pair in connection.query_params.multi_items() if pair[0] != "token"])
        path = "/" + connection.url.path.lstrip("/")  # of two slashes a browser would make another site
        response = RedirectResponse(f"{path}?{rest}" if rest else self.page if path == "/" else path, 303)
        is_encrypted = connection.headers.get("x-forwarded-proto") == "https"
        response.set_cookie(self.cookie, token, secure=is_encrypted, httponly=True, samesite="lax")
        return response

    def _is_token(self, given: str | None) -> bool:
        return bool(given and self.token and secrets.compare_digest(given.encode(), self.token.encode()))


def cookie_name(token: str) -> str:
    """One for the servers of a data root: browsers send cookies to every port of a host."""
    return f"drive_assets_{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def guarded(app: ASGIApp) -> ASGIApp:
    """An application behind the front door, if `drive-assets ui` serves it."""
    if SETTINGS not in os.environ:
        return app
    settings = json.loads(os.environ[SETTINGS])
    return TrustedHostMiddleware(
        FrontDoor(app, settings["token"], settings.get("page", "/")), settings["hosts"], www_redirect=False
    )


def _serve_dagster(options: list[str]) -> None:
    """Dagster's webserver has no option for middleware. `drive-assets ui` checks that the door is in place."""
    from dagster_webserver.cli import cli

    run = uvicorn.run
    uvicorn.run = lambda app, **settings: run(guarded(app), **settings)
    cli(options)


def _serve_mlflow(host: str, port: str) -> None:
    """As `mlflow server`, whose command has no option for middleware either."""
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR

    os.environ[BACKEND_STORE_URI_ENV_VAR] = os.environ["MLFLOW_BACKEND_STORE_URI"]
    os.environ[ARTIFACT_ROOT_ENV_VAR] = os.environ["MLFLOW_DEFAULT_ARTIFACT_ROOT"]
    from mlflow.server.fastapi_app import app

    uvicorn.run(guarded(app), host=host, port=int(port), log_level="warning")


if __name__ == "__main__":
    if sys.argv[1] == "dagster":
        _serve_dagster(sys.argv[2:])
    else:
        _serve_mlflow(*sys.argv[2:])
