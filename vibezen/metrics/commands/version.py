"""`vibezen-metrics version`"""


def version() -> None:
    """Print the version."""
    from importlib.metadata import version

    print(f"vibezen-metrics {version('vibezen-metrics')}")
