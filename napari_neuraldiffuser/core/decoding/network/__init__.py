"""The network decoder: a linear voxel encoder per subject, a backbone that all share, and a head for each target."""
