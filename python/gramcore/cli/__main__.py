"""``python -m gramcore.cli``."""

from gramcore.cli import main

main()
