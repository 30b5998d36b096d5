"""Engines: the same jobs in this process or on a Ray cluster.

Nothing outside of this folder and `pipeline.serving` imports Ray.
"""
