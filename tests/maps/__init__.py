"""Tests of the mail servers' maps, one module each."""
