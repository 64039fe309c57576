"""Which version of the package runs."""

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    try:
        return version("vibezen-metrics")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "unknown"
