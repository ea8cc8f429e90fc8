"""What everything stands on: errors, files, progress, and what a run computes and from what."""
