"""A codec for Headrace."""
