"""`python -m components.export`: see the package."""

from components.export import main

main()
