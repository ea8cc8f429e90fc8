"""What a run leaves: names of files, what lies beside results, sidecars, and the check of a folder."""
