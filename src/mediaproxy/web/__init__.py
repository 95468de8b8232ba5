"""HTTP for monitoring: /health, /metrics for Prometheus, /status and /calls as JSON."""
