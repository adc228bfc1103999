"""Tests of sapd.reading, one module each."""
