"""One module per command of `vibezen-metrics`; each imports what it runs only when it runs."""
