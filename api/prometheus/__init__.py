"""`GET /metrics`: the pipeline's own health and every metric now, as Prometheus reads them."""
