"""Decisions and stores together: what the service does, whatever asks and wherever it keeps."""
