"""Engines run the nodes of a workflow: how one is chosen, what is mended in MultiProc, and what nodes ask for."""
