"""The page of one subject."""
