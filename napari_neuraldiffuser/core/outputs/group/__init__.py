"""Table and page over the subjects of an output folder."""
