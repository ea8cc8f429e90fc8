"""The SLURM engine: its loop, SLURM's commands, and what jobs left."""
