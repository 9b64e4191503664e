"""Where parts are put together and run."""
