"""The linear decoder that is trained by contrast: ridge in the directions that betas predict, then SoftCLIP."""
