"""`python -m aglowd.cli` is `aglowd`, for those who start it without an installed script."""

from aglowd.cli.daemon import main

main()
