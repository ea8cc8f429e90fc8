"""The whole job of one subject: what to run, its stages, and resuming."""
