"""What stands beside napari's canvas: pictures of a run, and linked views of the three planes."""
