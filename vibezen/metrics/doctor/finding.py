"""What one check found, and what to do about it."""

from enum import StrEnum

import msgspec


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Works, but not as well or as safely as it could."""
    FAIL = "fail"
    """Something does not work, or data is in danger."""
    UNKNOWN = "unknown"
    """Could not be looked at."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """`seen`: what there is. `advice`: what to do, empty when nothing is to be done. No secret is in either."""

    name: str
    status: Status
    seen: str
    advice: str = ""


def ok(name: str, seen: str, advice: str = "") -> Finding:
    return Finding(name, Status.OK, seen, advice)


def warn(name: str, seen: str, advice: str) -> Finding:
    return Finding(name, Status.WARN, seen, advice)


def fail(name: str, seen: str, advice: str) -> Finding:
    return Finding(name, Status.FAIL, seen, advice)


def unknown(name: str, seen: str, advice: str = "") -> Finding:
    return Finding(name, Status.UNKNOWN, seen, advice)


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
