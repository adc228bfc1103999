"""What a line means: its frame, its format, and the login, logout or connect that it is."""
