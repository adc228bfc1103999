"""SMTP after POP for sendmail: see README.md."""
