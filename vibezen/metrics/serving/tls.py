"""TLS by certificate files, which may be replaced while we run."""

import logging
import os
import ssl
from pathlib import Path
from typing import Final

from vibezen.metrics.errors import ConfigError

PROTOCOLS: Final = ["http/1.1"]

log = logging.getLogger(__name__)


class Tls:
    """One certificate with its key, for new connections always the newest. Raises ConfigError in one line."""

    def __init__(self, certificate: Path, key: Path, setting: str) -> None:
        self._certificate, self._key = certificate, key
        self._stamps = self._look()
        self.context = _loaded(certificate, key, setting)
        self._setting = setting

    def refresh(self) -> None:
        """Take new files. Such as cannot be used, or do not fit yet, change nothing, and are told."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            _loaded(self._certificate, self._key, self._setting)  # first into one of its own: half loaded is broken
            self.context.load_cert_chain(self._certificate, self._key, _no_password)
        except (ConfigError, OSError) as error:
            log.error("the certificate served so far stays: %s", error)
            return
        log.info("%s: a new certificate is served", self._certificate)

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in (self._certificate, self._key))


def tls_of(certificate: Path | None, key: Path | None, section: str) -> Tls | None:
    """Of a section of the settings, whose name errors tell; None where it has no certificate."""
    if certificate is None or key is None:
        return None
    return Tls(certificate, key, section)


def _loaded(certificate: Path, key: Path, section: str) -> ssl.SSLContext:
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"vibezen.metrics.{section}.{name} = {str(path)!r}: {reason}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(PROTOCOLS)
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(f"vibezen.metrics.{section}.tls_certificate = {str(certificate)!r}: {_why(error)}") from None
    return context


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key in tls_key belongs to another certificate"
    if isinstance(error, ValueError):
        return "the key in tls_key asks for a password; it must have none"
    return "expected a certificate in PEM, its chain below it, and in tls_key its key in PEM"


def _no_password() -> str:
    """OpenSSL would ask on the terminal, and wait."""
    raise ValueError("the key asks for a password")


def _stamp(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
