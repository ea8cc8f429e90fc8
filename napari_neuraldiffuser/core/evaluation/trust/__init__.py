"""The trust sheet of a run: what would have come out anyway, beside what did.  Pure functions of arrays."""
