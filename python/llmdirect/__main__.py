"""`python -m llmdirect`, which is also what torchrun starts."""

from llmdirect.cli import main

main()
