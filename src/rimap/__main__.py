"""`python -m rimap`."""

from __future__ import annotations

from rimap.cli import main

if __name__ == "__main__":
    main()
