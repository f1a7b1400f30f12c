"""Settings come from the environment, name what is missing and show no secret."""

import subprocess
import sys
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.settings import SharePointSettings
from model.common.errors import DataError

MINIMUM = {"SHAREPOINT_TENANT_ID": "tenant", "SHAREPOINT_CLIENT_ID": "app", "SHAREPOINT_CLIENT_SECRET": "s3cret"}


def read(**variables: str) -> SharePointSettings:
    environment = MINIMUM | {f"SHAREPOINT_{name}": value for name, value in variables.items()}
    settings = SharePointSettings.from_environment(environment)
    assert settings is not None
    return settings


def test_without_a_tenant_there_are_no_settings() -> None:
    assert SharePointSettings.from_environment({"SHAREPOINT_CLIENT_ID": "app"}) is None
    assert SharePointSettings.from_environment(MINIMUM | {"SHAREPOINT_TENANT_ID": "  "}) is None


def test_each_cloud_has_its_hosts() -> None:
    settings = read(CLOUD="usdod")
    assert settings.graph == "https://dod-graph.microsoft.us"
    assert settings.authority == "https://login.microsoftonline.us/tenant"


def test_addresses_can_be_overridden() -> None:
    settings = read(GRAPH_URL="https://localhost:8443/v1.0/", LOGIN_URL="https://localhost:8443/")
    assert (settings.graph, settings.authority) == ("https://localhost:8443", "https://localhost:8443/tenant")


def test_every_variable_is_read(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    values = {
        "CLIENT_CERTIFICATE": str(bundle), "CLIENT_CERTIFICATE_PASSWORD": "p4ss", "LIBRARY": "Drives", "FOLDER": "a/b",
        "SITE": "https://contoso.sharepoint.com/sites/x", "CA_BUNDLE": str(bundle), "COMPANY": "Contoso",
        "WORKERS": "3", "TOKEN_CACHE": str(tmp_path / "cache"), "SHARED_LINK": "https://contoso.sharepoint.com/:f:/x",
    }  # fmt: skip
    settings = read(**values)
    fields = {name: getattr(settings, name.lower()) for name in values}
    assert {name: str(value) for name, value in fields.items()} == values
    assert (settings.auth, settings.client_secret, read().auth) == ("certificate", "s3cret", "secret")


@pytest.mark.parametrize(
    "wrong",
    [
        {"CLIENT_ID": ""},
        {"CLIENT_SECRET": ""},
        {"AUTH": "password"},
        {"AUTH": "certificate_password"},
        {"AUTH": "certificate"},
        {"CLIENT_CERTIFICATE": "/no/such/file"},
        {"CLOUD": "mars"},
        {"GRAPH_URL": "http://localhost"},
        {"LOGIN_URL": "localhost"},
        {"SITE": "contoso.sharepoint.com/sites/x"},
        {"SHARED_LINK": "contoso"},
        {"CA_BUNDLE": "/no/such/file"},
        {"COMPANY": "a|b"},
        {"WORKERS": "0"},
        {"WORKERS": "many"},
    ],
)
def test_a_wrong_variable_is_named(wrong: dict[str, str]) -> None:
    variable = "CLIENT_CERTIFICATE" if wrong == {"AUTH": "certificate"} else next(iter(wrong))
    with pytest.raises(DataError, match=f"SHAREPOINT_{variable} must be set to"):
        read(**wrong)


def test_no_secret_is_in_the_repr() -> None:
    settings = read(CLIENT_CERTIFICATE_PASSWORD="p4ss", SHARED_LINK="https://contoso.sharepoint.com/:f:/l1nk")
    assert not any(secret in repr(settings) for secret in ("s3cret", "p4ss", "l1nk"))


def test_importing_the_client_loads_no_msal_and_its_types_no_requests() -> None:
    package = "drive_assets.resources.sharepoint"
    code = (
        f"import sys, {package}.items, {package}.settings; assert not {{'msal', 'requests'}} & set(sys.modules);"
        f"import {package}.client; assert not {{'msal', 'dagster', 'torch', 'mlflow'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
