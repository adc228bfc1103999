"""SMTP after POP: see README.md."""
