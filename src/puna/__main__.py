"""`python -m puna` is `puna`."""

from puna.cli.launch import main

raise SystemExit(main())
