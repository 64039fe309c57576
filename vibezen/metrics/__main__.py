"""`python -m vibezen.metrics` is `vibezen-metrics`."""

from vibezen.metrics.cli import main

if __name__ == "__main__":
    main()
