"""Tests of sapd.events, one module each."""
