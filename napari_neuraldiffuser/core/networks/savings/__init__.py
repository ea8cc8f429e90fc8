"""The same results by fewer operations, in networks whose weights are frozen."""
