"""Real servers, started privately by the tests."""
