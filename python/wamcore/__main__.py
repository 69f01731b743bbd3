"""The ``wamcore`` command; also ``python -m wamcore``."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
