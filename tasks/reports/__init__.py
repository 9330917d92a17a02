"""Tasks that tell about the pipeline: settings, why, plan, verify, matrix, store, size."""
