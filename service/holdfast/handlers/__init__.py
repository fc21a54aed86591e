"""From message to message, one module per subject family. No subject, no header, no connection."""
