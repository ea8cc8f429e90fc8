"""Stages that train the bundled demo models; run by ``scripts/train_demo_models.py``."""
