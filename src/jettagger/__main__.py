"""`python -m jettagger` is the command `jettagger`."""

from jettagger.cli import main

main()
