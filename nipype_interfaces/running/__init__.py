"""Runs workflows for the command line: progress, dry run, what failed and why."""
