"""``python -m bitpress.cli``, the same as the ``bitpress`` script."""

from bitpress.cli.app import main

main()
