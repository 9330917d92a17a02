"""Piggyback: the stages of the pipeline, a module each, and the packages that they are made of."""
