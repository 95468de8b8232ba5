"""TLS for tests: a certificate authority that lives for one run."""

import ssl
from pathlib import Path

import trustme

from mediaproxy.edge.settings import Tls


class Authority:
    """A CA, and a server certificate of it for example.com and loopback."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.server_file = directory / "server.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self._ca.issue_cert("example.com", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(self.server_file)
        )

    @property
    def settings(self) -> Tls:
        """For the edge."""
        return Tls(certificate=str(self.server_file), authorities=str(self.ca_file))

    def client(self) -> ssl.SSLContext:
        """For a phone that trusts this CA."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def server(self) -> ssl.SSLContext:
        """For somebody else's server with the same certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(str(self.server_file))
        return context
