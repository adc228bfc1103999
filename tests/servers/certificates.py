"""A certificate authority for tests: two openssl commands, as the documentation has them."""

import subprocess
from pathlib import Path
from typing import NamedTuple

_DAYS = "30"
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificate(NamedTuple):
    """A certificate with its key: two PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates for host names; its files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Make its key and its own certificate."""
        folder.mkdir()
        self.folder = folder
        self.own = Certificate(folder / "ca.pem", folder / "ca.key")
        _openssl("req", "-x509", *_EC, "-days", _DAYS, "-subj", "/CN=test authority",
                 "-keyout", self.own.key, "-out", self.own.certificate)  # fmt: skip

    def certificate(self, name: str) -> Certificate:
        """A new certificate that is good for one name, as client and as server."""
        made = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        _openssl("req", "-x509", *_EC, "-days", _DAYS, "-subj", f"/CN={name}",
                 "-addext", f"subjectAltName=DNS:{name}",
                 "-addext", "basicConstraints=critical,CA:FALSE",
                 "-CA", self.own.certificate, "-CAkey", self.own.key,
                 "-keyout", made.key, "-out", made.certificate)  # fmt: skip
        return made


def _openssl(*arguments: str | Path) -> None:
    """Run openssl; CalledProcessError shows what it said."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
