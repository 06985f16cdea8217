"""python -m electra = the command line."""

from electra.cli import main

main()
