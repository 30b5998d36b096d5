"""Ablation: what a model answers without its Super Neurons, against as many matched random neurons."""
