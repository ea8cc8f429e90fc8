"""The pages of the dock: data, decode, reconstruct, contribution, report."""
