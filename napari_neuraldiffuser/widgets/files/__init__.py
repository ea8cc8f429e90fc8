"""Files and folders as layers in millimetres, and back."""
