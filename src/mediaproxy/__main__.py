"""``python -m mediaproxy`` is ``mediaproxy``."""

from mediaproxy.cli import main

if __name__ == "__main__":
    main()
