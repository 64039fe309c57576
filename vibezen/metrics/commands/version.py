"""`vibezen-metrics version`"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


def installed_version() -> str:
    try:
        return version_of("vibezen-metrics")
    except PackageNotFoundError:
        return "(not installed)"


def version() -> None:
    """Print the version."""
    print(f"vibezen-metrics {installed_version()}")
