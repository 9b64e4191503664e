"""The part of Prometheus' query language that Grafana's forms write, over the store's series."""
