"""The plugin's computing process: its calls, what it keeps warm and on disk, and its wire."""
