"""Procedurally drawn, captioned scenes: the stimuli of simulated subjects."""
