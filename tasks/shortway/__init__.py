"""Rebuilding after an edit by Kbuild's saved commands, without make."""
