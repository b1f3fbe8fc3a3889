"""The rules of each kind. Objects were decoded before: every field has its type here, but any may be missing."""
