"""What goes wrong with data."""

__all__ = ["DataError"]


class DataError(ValueError):
    """Images, tables or options that cannot be used; the message says what was found and what to do."""
