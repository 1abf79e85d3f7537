"Run a command of the library: python -m fsic_nb COMMAND."
from fsic_nb.cli import main

main()
