"""The trust sheet of a run: files in, the key "trust" of its summary out."""
