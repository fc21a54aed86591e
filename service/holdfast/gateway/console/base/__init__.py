"""The base of all pages: templates, sessions, and how values look."""
