"""A simulated subject in the scanner: its responses as BOLD with drift, motion, physiology and noise, in BIDS."""
