"""The method: the diffusion loop, what guides it, and one batch from embeddings to images."""
