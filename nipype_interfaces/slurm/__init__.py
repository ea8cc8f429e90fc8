"""Runs nodes as jobs of SLURM: the engine, SLURM's commands, and what jobs leave."""
