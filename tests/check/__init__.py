"""Tests of `sapd check`, one module a room."""
