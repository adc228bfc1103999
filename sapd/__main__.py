"""`python -m sapd` is `sapd`."""

from sapd.cli import main

main()
