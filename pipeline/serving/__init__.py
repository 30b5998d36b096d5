"""Serving: a classifier that answers over HTTP, on Ray Serve.

Nothing is imported here: Ray and the web framework are needed where a service runs, and nowhere else.
"""
