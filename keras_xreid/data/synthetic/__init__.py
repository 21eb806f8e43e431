"""The embedded set: drawn people, drawn on the user's machine."""
