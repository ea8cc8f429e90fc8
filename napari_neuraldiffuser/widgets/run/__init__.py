"""What the Reconstruct page is made of: controls, stimuli, pictures, scores, history."""
