"""Addresses of schedulers: where they are written, and whether a scheduler answers there, in the
right language."""

from __future__ import annotations

import json
import logging
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from distributed import Security

from cryolike_dask.errors import ClusterError, InputError, InputFileError
from cryolike_dask.io.identity import reading

logger = logging.getLogger("cryolike_dask")

LONGEST_FILE = 2**24
"""Most bytes of a scheduler file, which lists workers too."""

LONGEST_GREETING = 2**20
"""Bytes. A scheduler speaks first, and starts with the length of what it says; other services
start otherwise."""


def warn_if_open_to_others(address: str) -> None:
    """Warn of a scheduler that more than this machine can reach, and that asks nobody for a
    certificate."""
    parts = urlsplit(address)
    if parts.scheme == "tcp" and not _on_loopback(parts.hostname or ""):
        logger.warning(
            "%s: anyone who can reach this scheduler can run programs as you and read your files. "
            "Use TLS "
            "(dask scheduler --tls-ca-file --tls-cert --tls-key), or keep it behind a firewall.",
            address,
        )


def _on_loopback(host: str) -> bool:
    try:
        return all(ip_address(found[4][0]).is_loopback for found in socket.getaddrinfo(host, None))
    except OSError:
        return False


def address_in(file: Path) -> str:
    """The address that a scheduler wrote into its file.

    Raises
    ------
    InputFileError
    """
    if not file.name:
        raise InputFileError(
            f"{str(file)!r} is not a scheduler file", remedy="Give a file, or tcp://host:port."
        )
    remedy = (
        "Start `dask scheduler --scheduler-file` with it first, or give tcp://host:port or "
        "tls://host:port."
    )
    with reading(file, remedy) as opened:
        content = opened.read(LONGEST_FILE)
    try:
        return str(json.loads(content)["address"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputFileError(
            f"is not a scheduler file ({type(error).__name__}: {str(error)[:200]})",
            source=file,
            remedy="Give the file that `dask scheduler --scheduler-file` wrote.",
        ) from error


def check_scheduler(address: str, shown: str, security: Security | None, timeout: float) -> None:
    """See whether a scheduler answers that these certificates fit; a client of Dask's may wait for
    it without end.

    Parameters
    ----------
    address : str
    shown : str
        The address as the user gave it, for messages.
    security : Security or None
        None: what Dask's configuration says.
    timeout : float
        Seconds.

    Raises
    ------
    InputError
        If this is no address, or certificates are needed, damaged, or of no use.
    ClusterError
        If nothing answers, or in another language, or other certificates are wanted.
    """
    parts = _parts(address, shown)
    context = _tls_context(parts.scheme, shown, security)
    try:
        greeting = _greeting(parts, context, timeout)
    except ssl.SSLError as error:
        raise _tls_error(shown, error) from error
    except OSError as error:
        raise ClusterError(
            f"{shown} cannot be reached ({error.strerror or error})",
            remedy="Check that `dask scheduler` runs there and no firewall is between; a scheduler "
            "file may be old.",
        ) from error
    if greeting and int.from_bytes(greeting, "little") < LONGEST_GREETING:
        return
    if context is None and _speaks_tls(parts):
        raise ClusterError(
            f"{shown}: this scheduler speaks TLS only",
            remedy="Give tls://host:port, with tls_ca_file, tls_cert and tls_key.",
        )
    raise ClusterError(
        f"{shown} does not answer as a Dask scheduler within {timeout:g} s",
        remedy="Check host and port, or try again.",
    )


def _parts(address: str, shown: str) -> SplitResult:
    parts = urlsplit(address)
    try:
        is_address = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port
    except ValueError:  # of the port
        is_address = False
    if not is_address:
        raise InputError(
            f"{shown} is not an address", remedy="Give tcp://host:port or tls://host:port."
        )
    return parts


def _tls_context(scheme: str, shown: str, security: Security | None) -> ssl.SSLContext | None:
    """Certificates to connect with; None without encryption."""
    wanted = security or Security()
    context = _load(wanted)
    if scheme == "tls":
        if context is None:
            raise InputError(
                f"{shown} needs certificates", remedy="Give tls_ca_file, tls_cert and tls_key."
            )
        return context
    if wanted.require_encryption or (security is not None and context is not None):
        raise InputError(
            f"{shown} is not encrypted, but certificates are given",
            remedy="Start the scheduler and its workers with them and give tls://host:port, or "
            "leave them out.",
        )
    return None


def _load(security: Security) -> ssl.SSLContext | None:
    try:
        context: ssl.SSLContext | None = security.get_connection_args("client").get("ssl_context")
    except (OSError, ValueError) as error:
        names = [security.tls_ca_file, security.tls_client_cert, security.tls_client_key]
        shown = ", ".join(str(name) for name in names if name and "\n" not in str(name))
        raise InputFileError(
            f"these certificates cannot be used ({getattr(error, 'strerror', None) or error})",
            source=shown or None,
            remedy="They must be PEM files, and the key must be that of the certificate.",
        ) from error
    return context


def _greeting(parts: SplitResult, context: ssl.SSLContext | None, timeout: float) -> bytes:
    """The first bytes that come from whom one connects to; none if there are none in time."""
    with socket.create_connection((parts.hostname, parts.port), timeout) as plain:
        try:
            if context is None:
                return plain.recv(8)
            with context.wrap_socket(plain) as encrypted:
                return encrypted.recv(8)
        except (TimeoutError, ConnectionResetError):
            return b""


def _speaks_tls(parts: SplitResult) -> bool:
    context = ssl.create_default_context()
    # to ask which language, not to tell anything
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname, parts.port), 2) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except OSError:
        return False


def _tls_error(shown: str, error: ssl.SSLError) -> ClusterError:
    if isinstance(error, ssl.SSLCertVerificationError):
        what = "its certificate is not signed by tls_ca_file"
        remedy = "Give the CA that the scheduler was started with"
    elif "ALERT" in (error.reason or ""):
        what = "it refuses tls_cert"
        remedy = "Give a certificate that the CA of the scheduler has signed"
    else:
        what = "this scheduler does not speak TLS"
        remedy = "Start it with certificates, or give tcp://host:port"
    return ClusterError(f"{shown}: {what} ({error.reason})", remedy=f"{remedy}.")
