"""Decisions and stores together: the service, for all callers and all stores."""
