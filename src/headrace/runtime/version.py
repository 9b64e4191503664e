"""The version that runs."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Version of the installed package; ``unknown`` from a bare source tree."""
    try:
        return installed("headrace")
    except PackageNotFoundError:
        return "unknown"
