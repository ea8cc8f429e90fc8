"""Parts of the simulated subject: atlas, brain, experiment, image features, voxel responses, noise, files.

Nothing here knows the guide network, the VAE, the text encoder or the decoder: a good reconstruction of a simulated
subject is not circular.
"""
