"""Tasks on doit: inputs, records, runs in parallel, and why a task runs."""
