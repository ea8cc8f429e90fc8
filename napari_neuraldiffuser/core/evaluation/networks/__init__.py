"""The field's scoring networks, in modules whose weights are named as torchvision's, and the files they come from."""
