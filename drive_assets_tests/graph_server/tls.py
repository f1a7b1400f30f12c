"""Certificates for a server on loopback, from one authority per process, and a client's credential."""

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509

HOSTS = ("localhost", "127.0.0.1", "graph.microsoft.com", "login.microsoftonline.com", "*.sharepoint.com")
"""The server's own names, and those that a proxy sends to it."""


@dataclass(frozen=True)
class Certificates:
    """Each PEM file of a server or client holds its private key and its certificate."""

    ca_bundle: Path
    server_pem: Path
    client_pem: Path
    client: x509.Certificate


@functools.cache
def certificates() -> Certificates:
    folder = Path(tempfile.mkdtemp(prefix="graph-server-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ca_bundle, server_pem, client_pem = (folder / f"{name}.pem" for name in ("ca", "server", "client"))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca_bundle))
    authority.issue_cert(*HOSTS).private_key_and_cert_chain_pem.write_to_path(str(server_pem))
    credential = authority.issue_cert("drive-assets.invalid", key_type=trustme.KeyType.RSA)
    credential.private_key_and_cert_chain_pem.write_to_path(str(client_pem))
    client = x509.load_pem_x509_certificate(credential.cert_chain_pems[0].bytes())
    return Certificates(ca_bundle, server_pem, client_pem, client)
