"""The catalogue of metrics and its exposition."""
