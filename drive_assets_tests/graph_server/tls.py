"""Certificates for a server on loopback, from one authority per process, and a client's credential."""

import atexit
import functools
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509

HOSTS = ("localhost", "127.0.0.1", "graph.microsoft.com", "login.microsoftonline.com", "*.sharepoint.com")
"""The server's own names, and those that a proxy sends to it."""


@dataclass(frozen=True)
class Certificates:
    ca_bundle: Path
    """PEM file of the authority that signed the server's certificate."""
    server: ssl.SSLContext
    client_pem: Path
    """PEM file with the private key and the certificate of the app registration."""
    client: x509.Certificate


@functools.cache
def certificates() -> Certificates:
    folder = Path(tempfile.mkdtemp(prefix="graph-server-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*HOSTS).configure_cert(context)
    credential = authority.issue_cert("drive-assets.invalid", key_type=trustme.KeyType.RSA)
    pem = credential.private_key_and_cert_chain_pem.bytes()
    (folder / "client.pem").write_bytes(pem)
    known = x509.load_pem_x509_certificate(credential.cert_chain_pems[0].bytes())
    return Certificates(folder / "ca.pem", context, folder / "client.pem", known)
