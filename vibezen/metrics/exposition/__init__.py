"""Prometheus' formats: what we tell of ourselves and of the metrics, as text, as OpenMetrics and as protobuf."""
