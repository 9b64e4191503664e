"""What devices send to each adapter in ``headrace bench adapters``, and a bare client of the same protocol beside it."""
